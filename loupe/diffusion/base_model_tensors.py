"""Whether the weights of a base model are those that its configurations describe, by the heads of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loupe.diffusion.base_model_files import weight_file


def tensor_problems(folder: Path, part: str) -> list[str]:
    """Return how the weights of `part` are not those that its configuration describes; empty when they are.

    Names and shapes alone are compared, from the head of the file: seconds also for a model of full size.
    """
    from safetensors import safe_open

    file = weight_file(folder, part)
    with safe_open(file, framework="pt") as weights:
        stored = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    try:
        wanted, stored = _wanted_and_stored(folder, part, stored)
    except Exception as error:  # the libraries raise errors of any kind for settings that do not go together
        why = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        return [
            f"{part}/config.json describes no model that can be built ({why}); download or copy the base model again"
        ]
    lacking = [name for name in wanted if name not in stored]
    other = [
        f"{name} {list(stored[name])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if stored.get(name, shape) != shape
    ]
    found = {"lacks {} tensors": lacking, "has {} tensors of another shape": other}
    return [
        f"{part}/{file.name} {words.format(len(names))} of the {len(wanted)} that {part}/config.json describes: "
        f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}. Download or copy the base model again"
        for words, names in found.items()
        if names
    ]


def _wanted_and_stored(folder: Path, part: str, stored: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the shapes that the configuration asks for, and `stored`, both under the names of today's libraries."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        if part == "text_encoder":
            model = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / part, local_files_only=True))
        else:
            kind = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part]
            model = kind.from_config(kind.load_config(folder / part, local_files_only=True))
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if part != "text_encoder":
        # Files of before diffusers 0.13 call the VAE's attention query, key, value and proj_attn.
        return wanted, model._fix_state_dict_keys_on_load(dict(stored))
    # Published files have a prefix that transformers 5 dropped from the model, and takes off when it loads them.
    prefix = "text_model."
    wanted = {name.removeprefix(prefix): shape for name, shape in wanted.items()}
    return wanted, {name.removeprefix(prefix): shape for name, shape in stored.items()}
