"""Resolving and checking a base model: any Stable-Diffusion-shaped diffusers folder, safetensors only.

This is one of the two places where a name becomes a path; from there on our small model and Stable Diffusion 1.5 go
through the same lines. It loads no weights; model_loading.py does.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from loupe.atomic_io import sha256_file
from loupe.diffusion.base_model_files import PIXELS_PER_LATENT, WEIGHTS, weight_file
from loupe.diffusion.base_model_tensors import tensor_problems
from loupe.diffusion.hub import HUB_ID, cached_folder, download, require_on_hub
from loupe.errors import PipelineError, problems_message
from loupe.records import BaseModelInfo
from loupe.workstore import fingerprint

DEMO = "demo"
PREDICTION_TYPES = ("epsilon", "v_prediction")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "sigmoid")
"""Those of diffusers' DDPMScheduler, which training and drawing take their noise from."""
LEAST_TIMESTEPS = 8
"""Of the noise schedule: as many as the validation loss looks at."""
_MORE_CONDITIONS = ("class_embed_type", "num_class_embeds", "encoder_hid_dim", "encoder_hid_dim_type")
_TEXT_MODELS = ("clip_text_model", "clip")
_CONFIGS = {
    "unet": "unet/config.json",
    "vae": "vae/config.json",
    "text_encoder": "text_encoder/config.json",
    "scheduler": "scheduler/scheduler_config.json",
}
_PICKLES = {".bin", ".ckpt", ".pt", ".pth"}


def resolve_base_model(name: str, revision: str | None, *, demo_folder: Path) -> Path:
    """Return the folder of the base model `name`: `demo`, a diffusers folder on disk, or a Hub id with a commit hash.

    `demo_folder` holds our own small model in its sub-folder `base`. Raises PipelineError that lists every missing
    part, or says what to download; that takes seconds, also without a network. A download takes as long as it takes.
    """
    folder = base_model_on_disk(name, revision, demo_folder=demo_folder)
    if folder is not None:
        return folder
    folder = download(name, revision)
    _require_whole(folder, name)
    return folder


def base_model_on_disk(name: str, revision: str | None, *, demo_folder: Path) -> Path | None:
    """Return what resolve_base_model does, or None where that would have to download it and can."""
    folder: Path | None = demo_folder / "base" if name == DEMO else Path(name).expanduser()
    if folder.is_dir() or name == DEMO:
        if revision is not None:
            raise PipelineError(f"model.revision is {revision!r}, but {name} is a folder: set model.revision to null.")
    elif HUB_ID.fullmatch(name):
        folder = cached_folder(name, revision)
        if folder is None or missing_parts(folder):
            require_on_hub(name, revision)
            return None
    else:
        raise PipelineError(
            f"model.base: there is no folder {name!r}, and it is no Hub id (owner/name). Use `demo`, a diffusers "
            f"folder, or e.g. stable-diffusion-v1-5/stable-diffusion-v1-5."
        )
    _require_whole(folder, name)
    return folder


def _require_whole(folder: Path, name: str) -> None:
    problems = missing_parts(folder) or _shape_problems(folder)
    # The rest would be said of nearly every tensor where a configuration is wrong, or no model be built from it.
    problems = problems or [problem for part in WEIGHTS for problem in tensor_problems(folder, part)]
    if problems:
        raise PipelineError(problems_message(f"The base model {name}", problems))


def missing_parts(folder: Path) -> list[str]:
    """Return what `folder` lacks to be a loadable base model, one sentence per part; empty when it is whole."""
    problems = [f"{file} is missing" for file in _CONFIGS.values() if not (folder / file).is_file()]
    tokenizer = folder / "tokenizer"
    if not (tokenizer / "tokenizer.json").is_file():
        lacking = [name for name in ("vocab.json", "merges.txt") if not (tokenizer / name).is_file()]
        problems += [f"tokenizer/{name} is missing" for name in lacking]
    problems += _damaged_settings(tokenizer)
    for part in WEIGHTS:
        problems += _weight_problems(folder, part)
    return problems


def _damaged_settings(folder: Path) -> list[str]:
    problems = []
    for file in sorted(folder.glob("*.json")):
        try:
            json.loads(file.read_bytes())
        except ValueError as error:
            problems.append(f"{folder.name}/{file.name} is damaged or cut short ({error}); download or copy it again")
    return problems


def _weight_problems(folder: Path, part: str) -> list[str]:
    from safetensors import SafetensorError, safe_open

    file = weight_file(folder, part)
    if file is None:
        pickles = sorted(p.name for p in (folder / part).glob("*") if p.suffix in _PICKLES)
        if pickles:
            return [
                f"{part} holds only {', '.join(pickles)}: a pickle can run any code when it is loaded, so only "
                f"safetensors are. Save the model again with diffusers' save_pretrained(safe_serialization=True)"
            ]
        return [f"{part}/{WEIGHTS[part]}.safetensors is missing"]
    try:
        with safe_open(file, framework="pt"):
            return []
    except (SafetensorError, OSError) as error:
        return [f"{part}/{file.name} is damaged or cut short ({error}); download or copy it again"]


def _config(folder: Path, part: str) -> dict[str, Any]:
    file = folder / _CONFIGS[part]
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise PipelineError(f"{file} is no JSON ({error}); download or copy the base model again.") from None
    if not isinstance(content, dict):
        raise PipelineError(
            f"{file} holds no settings but {json.dumps(content)[:40]}, expected a JSON object; download or copy the "
            f"base model again."
        )
    return content


def _shape_problems(folder: Path) -> list[str]:
    """Return why the configurations do not describe a Stable Diffusion 1.x or 2.x; empty when they do."""
    configs, problems = [], []
    for part in _CONFIGS:
        try:
            configs.append(_config(folder, part))
        except PipelineError as error:
            problems.append(str(error))
    if problems:
        return problems
    unet, vae, text, scheduler = configs
    if unet.get("_class_name") != "UNet2DConditionModel" or vae.get("_class_name") != "AutoencoderKL":
        problems.append(
            f"needs a UNet2DConditionModel and an AutoencoderKL; found {unet.get('_class_name')} and "
            f"{vae.get('_class_name')}. Stable Diffusion 1.x and 2.x, and models fine-tuned from them, have those"
        )
        return problems
    lacking = [name for name in ("in_channels", "cross_attention_dim", "sample_size") if name not in unet]
    lacking += [name for name in ("latent_channels", "block_out_channels") if name not in vae]
    if lacking:
        return [f"unet/config.json or vae/config.json does not say {', '.join(lacking)}"]
    if unet.get("addition_embed_type"):
        problems.append("this UNet wants size or pooled-text conditioning as SDXL has it, which is not supported")
    if unet["in_channels"] != vae["latent_channels"]:
        problems.append(
            f"the UNet takes {unet['in_channels']} channels, the VAE gives {vae['latent_channels']}: an inpainting or "
            f"depth model cannot be trained on photos and captions alone"
        )
    if wanted := [name for name in _MORE_CONDITIONS if unet.get(name) is not None]:
        problems.append(f"this UNet wants more than noise, timestep and text ({', '.join(wanted)}): not supported")
    if not _is_count(unet["sample_size"]):
        problems.append(f"unet/config.json: sample_size is {unet['sample_size']!r}; expected one whole number")
    blocks = vae["block_out_channels"]
    if not isinstance(blocks, list) or not blocks or not all(map(_is_count, blocks)):
        problems.append(f"vae/config.json: block_out_channels is {blocks!r}; expected a list of whole numbers")
    elif pixels_per_latent(folder) != PIXELS_PER_LATENT:
        problems.append(f"the VAE makes {pixels_per_latent(folder)} px of a latent; supported: {PIXELS_PER_LATENT}")
    return problems + _latent_problems(vae) + _text_problems(unet, text) + _schedule_problems(scheduler)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_between(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least < value < most


def _latent_problems(vae: dict[str, Any]) -> list[str]:
    """Return why the VAE's latents would not be what the UNet was made for."""
    problems = []
    factor = vae.get("scaling_factor", 0.18215)
    if not _is_between(factor, 0, math.inf):
        problems.append(f"vae/config.json: scaling_factor is {factor!r}; expected a number above 0, e.g. 0.18215")
    if moved := [name for name in ("shift_factor", "latents_mean", "latents_std") if vae.get(name)]:
        problems.append(f"vae/config.json: latents are moved by {', '.join(moved)}, which is not supported")
    return problems


def _text_problems(unet: dict[str, Any], text: dict[str, Any]) -> list[str]:
    kind = text.get("model_type", _TEXT_MODELS[0])
    if kind not in _TEXT_MODELS:
        return [f"the text encoder is of the kind {kind!r}; expected CLIP's, as Stable Diffusion 1.x and 2.x have it"]
    names = text.get("architectures") or []
    if not isinstance(names, list) or not all(str(name).startswith("CLIP") for name in names):
        return [f"the text encoder's architectures are {names!r}; expected CLIPTextModel"]
    inner = text.get("text_config")
    width = text.get("hidden_size", inner.get("hidden_size") if isinstance(inner, dict) else None)
    if unet["cross_attention_dim"] == width:
        return []
    return [f"the UNet attends to vectors of {unet['cross_attention_dim']}, the text encoder gives {width}"]


def _schedule_problems(scheduler: dict[str, Any]) -> list[str]:
    """Return why the noise schedule cannot be taken over: what it leaves open, defaults would fill in silence."""
    problems = []
    kind = scheduler.get("prediction_type", "epsilon")
    if kind not in PREDICTION_TYPES:
        problems.append(f"prediction_type is {kind!r}; supported: {', '.join(PREDICTION_TYPES)}")
    name = str(scheduler.get("_class_name"))
    ends = [scheduler.get("beta_start"), scheduler.get("beta_end")]
    is_flow = "Flow" in name or scheduler.get("use_flow_sigmas")
    if is_flow or (None in ends and scheduler.get("trained_betas") is None):
        problems.append(
            f"the scheduler ({name}) has no betas: flow matching and the like are not supported; expected beta_start "
            f"and beta_end, as PNDMScheduler, DDIMScheduler and DDPMScheduler have them"
        )
    elif scheduler.get("trained_betas") is None and not all(_is_between(end, 0, 1) for end in ends):
        problems.append(f"beta_start and beta_end are {ends[0]!r} and {ends[1]!r}; expected numbers between 0 and 1")
    n_timesteps = scheduler.get("num_train_timesteps", 1000)
    if not _is_count(n_timesteps) or n_timesteps < LEAST_TIMESTEPS:
        problems.append(
            f"num_train_timesteps is {n_timesteps!r}; expected a whole number of at least {LEAST_TIMESTEPS}, e.g. 1000"
        )
    schedule = scheduler.get("beta_schedule", BETA_SCHEDULES[0])
    if schedule not in BETA_SCHEDULES:
        problems.append(f"beta_schedule is {schedule!r}; supported: {', '.join(BETA_SCHEDULES)}")
    return problems


def base_model_info(folder: Path, *, name: str, revision: str | None) -> BaseModelInfo:
    """Return what identifies the base model in `folder`, with one SHA-256 over its weights and configurations."""
    unet, vae = _config(folder, "unet"), _config(folder, "vae")
    texts = [*folder.glob("*/*.json"), *folder.glob("tokenizer/*.txt")]
    files = {file for file in texts if file.parent.name in (*_CONFIGS, "tokenizer")}
    files |= {file for part in WEIGHTS if (file := weight_file(folder, part))}
    hashes = {file.relative_to(folder).as_posix(): sha256_file(file) for file in sorted(files)}
    return BaseModelInfo(
        name=name,
        revision=revision,
        sha256=fingerprint(hashes),
        prediction_type=_config(folder, "scheduler").get("prediction_type", "epsilon"),
        latent_channels=vae["latent_channels"],
        scaling_factor=vae.get("scaling_factor", 0.18215),
        sample_size_px=unet["sample_size"] * pixels_per_latent(folder),
    )


def pixels_per_latent(folder: Path) -> int:
    """Return how many pixels of a side the base model's VAE makes of one latent: 8 in Stable Diffusion."""
    return 2 ** (len(_config(folder, "vae")["block_out_channels"]) - 1)


def context_length(folder: Path) -> int:
    """Return how many tokens the base model's text encoder reads; 77 where its configuration leaves CLIP's default."""
    return _config(folder, "text_encoder").get("max_position_embeddings", 77)
