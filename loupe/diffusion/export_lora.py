"""One adapter in the forms that other programs read: kohya for AUTOMATIC1111, Forge and ComfyUI; diffusers; merged.

The known traps are alpha, which both of diffusers' own ways lose, and key names that ComfyUI skips with no more than a
warning. Weights stay float32 and unchanged. It reads no other program's files back.

kohya names: `lora_unet_<layer path with _ for .>` with `.lora_down.weight` (A), `.lora_up.weight` (B) and `.alpha`; for
the text encoder `lora_te_text_model_<...>`.
DoRA adds `.dora_scale` [out, 1], of a convolution [out, 1, 1, 1], as LyCORIS has it for lengths of output rows. Its
readers differ: diffusers' leaves it out, ComfyUI divides by the base weight's lengths where PEFT and LyCORIS divide by
those of the sum. So a DoRA is exact in the diffusers form and merged, not everywhere in this one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from loupe.atomic_io import sha256_file, write_bytes
from loupe.diffusion.adapter import MAGNITUDE, AdapterConfig, AdapterState, read_adapter
from loupe.diffusion.model_loading import load_noise_scheduler, load_text_encoder, load_tokenizer, load_unet, load_vae
from loupe.diffusion.sampling import make_sampler
from loupe.diffusion.tensor_files import tensor_bytes
from loupe.records import BaseModelInfo, ExportedFile

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
KOHYA_UNET, KOHYA_TEXT = "lora_unet_", "lora_te_"
_TEXT_MODEL = "text_model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_LENGTH_BYTES = 8
_FAMILIES = {768: "sd_v1", 1024: "sd_v2"}
"""Width of the text vectors -> kohya's name; nothing else about a base model tells Stable Diffusion 1.x from 2.x."""


@dataclass(frozen=True, slots=True)
class ExportLabels:
    """What is written beside the weights, for programs and people that see only the file."""

    name: str
    step: int
    trigger: str
    base_model: BaseModelInfo
    resolution_px: int
    n_train: int
    """Number of training examples."""


def kohya_state(state: AdapterState, config: AdapterConfig, *, prefix: str = KOHYA_UNET) -> dict[str, torch.Tensor]:
    """Return the adapter under kohya's names, with the true alpha of every layer as a float32 scalar.

    `prefix` says which model it is of: KOHYA_UNET, or KOHYA_TEXT for a state of `text_model_state`. Readers scale
    by alpha / rank, rank being the first dimension of lora_down; a missing alpha means 1.0 to them.
    """
    converted = {}
    for path in layer_paths(state):
        name = f"{prefix}{path.replace('.', '_')}"
        converted[f"{name}.lora_down.weight"] = state[path + _A]
        converted[f"{name}.lora_up.weight"] = state[path + _B]
        converted[f"{name}.alpha"] = torch.tensor(kohya_alpha(config))
        if config.use_dora:
            converted[f"{name}.dora_scale"] = _per_row(state[path + MAGNITUDE], state[path + _B].dim())
    return converted


def kohya_alpha(config: AdapterConfig) -> float:
    """Return the alpha whose alpha / rank is the adapter's strength: for rank-stabilised LoRA not its own."""
    return float(config.alpha) * (math.sqrt(config.rank) if config.use_rslora else 1.0)


def text_model_state(state: AdapterState) -> AdapterState:
    """Return a text encoder's adapter with `text_model.` before each layer's path, as every reader's names have it.

    transformers had that level in its CLIP text encoder up to version 4 and has it no longer.
    """
    return {key if key.startswith(_TEXT_MODEL) else _TEXT_MODEL + key: tensor for key, tensor in state.items()}


def diffusers_state(state: AdapterState, *, model: str = "unet") -> dict[str, torch.Tensor]:
    """Return the adapter under the names that `pipeline.load_lora_weights` reads without conversion.

    `model` is the part of the pipeline: unet, or text_encoder for a state of `text_model_state`. Lengths of the latter
    are read by transformers, which takes them for missing without the `.weight` that PEFT's own files leave out.
    """
    ending = ".weight" if model == "text_encoder" else ""
    return {f"{model}.{key}{ending if key.endswith(MAGNITUDE) else ''}": tensor for key, tensor in state.items()}


def layer_paths(state: AdapterState) -> list[str]:
    """Return the paths of the adapted layers, sorted."""
    return sorted(key.removesuffix(_A) for key in state if key.endswith(_A))


def diffusers_metadata(configs: Mapping[str, AdapterConfig]) -> dict[str, str]:
    """Return the header that makes `load_lora_weights` restore alpha; without it the strength is 1 instead of
    alpha / rank. `configs` has the adapter of each part of the pipeline: unet, perhaps text_encoder.
    """
    packed = {}
    for model, config in configs.items():
        settings = {
            "r": config.rank,
            "lora_alpha": config.alpha,
            "target_modules": sorted(config.target_modules),
            "lora_dropout": 0.0,
            "bias": "none",
            "use_dora": config.use_dora,
            "use_rslora": config.use_rslora,
        }
        packed |= {f"{model}.{key}": value for key, value in settings.items()}
    return {"format": "pt", "lora_adapter_metadata": json.dumps(packed, sort_keys=True)}


def kohya_metadata(
    config: AdapterConfig, labels: ExportLabels, *, tensor_sha256: str, text_width: int
) -> dict[str, str]:
    """Return the header in kohya's `ss_*` and Stability's ModelSpec 1.0 keys; every value is a string.

    Keys that could only be guessed (a family for a base model that is neither SD 1.x nor 2.x) are left out.
    """
    v_prediction = labels.base_model.prediction_type == "v_prediction"
    side = f"{labels.resolution_px}x{labels.resolution_px}"
    header = {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(config.rank),
        "ss_network_alpha": f"{kohya_alpha(config):.9g}",
        "ss_output_name": labels.name,
        "ss_steps": str(labels.step),
        "ss_num_train_images": str(labels.n_train),
        "ss_resolution": f"({labels.resolution_px}, {labels.resolution_px})",
        "ss_sd_model_name": labels.base_model.name,
        "ss_clip_skip": "None",
        "sshs_model_hash": tensor_sha256,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.implementation": "diffusers",
        "modelspec.title": labels.name,
        "modelspec.resolution": side,
        "modelspec.prediction_type": "v" if v_prediction else "epsilon",
        "modelspec.hash_sha256": f"0x{tensor_sha256}",
        "modelspec.description": f"LoRA, step {labels.step}, for {labels.base_model.name} "
        f"(base model SHA-256 {labels.base_model.sha256})",
    }
    if config.use_dora:
        header["ss_network_module"] = "lycoris.kohya"
        header["ss_network_args"] = json.dumps({"algo": "locon", "dora_wd": "True", "wd_on_out": "True"})
    if labels.trigger:
        header["modelspec.trigger_phrase"] = labels.trigger
        header["ss_tag_frequency"] = json.dumps({labels.name: {labels.trigger: labels.n_train}})
    family = _FAMILIES.get(text_width)
    if family is not None:
        second = "stable-diffusion-v2-768-v" if v_prediction else "stable-diffusion-v2-512"
        header["ss_base_model_version"] = family
        header["ss_v2"] = str(family == "sd_v2")
        header["modelspec.architecture"] = f"{'stable-diffusion-v1' if family == 'sd_v1' else second}/lora"
    return header


def merge_adapter(model: torch.nn.Module, state: AdapterState, *, scaling: float) -> None:
    """Add scaling * B @ A to the weights of a model without adapter, in place; DoRA then sets every row's length."""
    with torch.no_grad():
        for path in layer_paths(state):
            a, b = state[path + _A], state[path + _B]
            weight = model.get_submodule(path).weight
            merged = weight.float() + (b.flatten(1) @ a.flatten(1)).reshape(weight.shape) * scaling
            magnitude = state.get(path + MAGNITUDE)
            if magnitude is not None:
                lengths = merged.flatten(1).norm(dim=1)
                merged *= _per_row(magnitude.flatten() / lengths, merged.dim())
            weight.copy_(merged)


def _per_row(values: torch.Tensor, n_dims: int) -> torch.Tensor:
    """Return one value per output row in the shape that spreads over a weight of `n_dims` dimensions."""
    return values.flatten().reshape(-1, *[1] * (n_dims - 1))


def export_adapter(
    adapter_folder: Path,
    *,
    text_adapter_folder: Path | None = None,
    base_folder: Path,
    labels: ExportLabels,
    full_pipeline: bool,
    output: Path,
) -> list[ExportedFile]:
    """Write the adapter of a checkpoint's folder to `output` in every form and return the files with their hashes.

    `<name>.safetensors` (kohya), `<name>-diffusers/pytorch_lora_weights.safetensors`, and, when `full_pipeline`, the
    folder `<name>-pipeline` with the adapter merged in. `text_adapter_folder` has the adapter of the text encoder, when
    there is one; it goes into the same files.
    """
    state, config = read_adapter(adapter_folder)
    of_text, configs = {}, {"unet": config}
    if text_adapter_folder is not None:
        of_text, configs["text_encoder"] = read_adapter(text_adapter_folder)
    named_text = text_model_state(of_text)
    kohya = kohya_state(state, config) | kohya_state(named_text, config, prefix=KOHYA_TEXT)
    diffusers = diffusers_state(state) | diffusers_state(named_text, model="text_encoder")
    header = kohya_metadata(config, labels, tensor_sha256=_tensor_sha256(kohya), text_width=_text_width(base_folder))
    files: dict[Path, str] = {
        output / f"{labels.name}.safetensors": "kohya",
        output / f"{labels.name}-diffusers" / DIFFUSERS_FILE: "diffusers",
    }
    kohya_file, diffusers_file = files
    write_bytes(kohya_file, tensor_bytes(kohya, metadata=header))
    write_bytes(diffusers_file, tensor_bytes(diffusers, metadata=diffusers_metadata(configs)))
    if full_pipeline:
        folder = output / f"{labels.name}-pipeline"
        _write_pipeline(folder, base_folder, state, of_text, scaling=config.scaling)
        files |= {file: "pipeline" for file in sorted(folder.rglob("*")) if file.is_file()}
    return [exported_file(file, kind, output) for file, kind in files.items()]


def exported_file(file: Path, kind: str, output: Path) -> ExportedFile:
    """Return the record of a file below `output`."""
    return ExportedFile(file=file.relative_to(output).as_posix(), format=kind, sha256=sha256_file(file))


def _text_width(base_folder: Path) -> int:
    return json.loads((base_folder / "unet" / "config.json").read_bytes())["cross_attention_dim"]


def _tensor_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the hash of the file's bytes after its header, which is how AUTOMATIC1111 tells two LoRAs apart."""
    content = tensor_bytes(tensors, metadata={})
    start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    return hashlib.sha256(content[start:]).hexdigest()


def _write_pipeline(
    folder: Path, base_folder: Path, state: AdapterState, of_text: AdapterState, *, scaling: float
) -> None:
    """Write the base model with the adapters merged in, float32, with the sampler that the review's pictures used."""
    from diffusers import StableDiffusionPipeline

    on_cpu = {"device": "cpu", "dtype": torch.float32}
    unet = load_unet(base_folder, **on_cpu)
    merge_adapter(unet, state, scaling=scaling)
    text_encoder = load_text_encoder(base_folder, **on_cpu)
    merge_adapter(text_encoder, of_text, scaling=scaling)
    pipeline = StableDiffusionPipeline(
        vae=load_vae(base_folder, **on_cpu),
        text_encoder=text_encoder,
        tokenizer=load_tokenizer(base_folder),
        unet=unet,
        scheduler=make_sampler(load_noise_scheduler(base_folder)),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
