"""Which layers of a UNet get an adapter: presets and lists of names, resolved here to the one list that everybody uses.

It reads a UNet's structure only, so a UNet without weights will do; it adds no adapter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.errors import PipelineError, nearest_names, problems_message

if TYPE_CHECKING:
    import torch
    from diffusers import UNet2DConditionModel

_ATTENTION = ("to_k", "to_out.0", "to_q", "to_v")
_PRESETS = {
    "qv": ("to_q", "to_v"),
    "attention": _ATTENTION,
    "attention+ff": (*_ATTENTION, "ff.net.0.proj", "ff.net.2"),
}
ALL_LINEAR_CONV = "all-linear-conv"


def resolve_target_modules(unet: torch.nn.Module, choice: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names, sorted, of the layers that `choice` (a preset's name or a list of names) means in `unet`.

    A name matches the end of a layer's path. Raises PipelineError, naming all at once with the nearest, for names that
    match no linear or convolution layer.
    """
    if choice == ALL_LINEAR_CONV:
        return tuple(sorted({_short_name(path) for path in _fit_paths(unet)}))
    names = _PRESETS[choice] if isinstance(choice, str) else choice
    problems = target_problems(unet, names)
    if problems:
        raise PipelineError(problems_message("train.target_modules", problems))
    return tuple(sorted(set(names)))


def unet_skeleton(base: Path) -> UNet2DConditionModel:
    """Return the UNet of the base model in the folder `base` with its structure and no weights (meta device)."""
    import torch
    from diffusers import UNet2DConditionModel

    config = json.loads((base / "unet" / "config.json").read_bytes())
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(config)


def target_problems(unet: torch.nn.Module, names: Sequence[str]) -> list[str]:
    """Return a sentence for each of `names` that matches no layer an adapter can go to."""
    modules = dict(unet.named_modules())
    fit = _fit_paths(unet)
    ends = {".".join(parts[-n:]) for path in fit for n in (1, 2) if len(parts := path.split(".")) >= n}
    known = sorted(end for end in ends if not end.isdigit())
    problems = []
    for name in names:
        matches = [path for path in modules if path == name or path.endswith(f".{name}")]
        unfit = [path for path in matches if path not in fit]
        if unfit:
            kind = type(modules[unfit[0]]).__name__
            problems.append(f"{name}: {unfit[0]} is a {kind}; an adapter goes to linear and convolution layers")
        elif not matches:
            nearest = nearest_names(name, known) or list(_ATTENTION)
            problems.append(f"{name}: no such layer in this UNet; nearest: {', '.join(nearest)}")
    return problems


def _fit_paths(unet: torch.nn.Module) -> set[str]:
    """Return the paths of the layers that an adapter can go to."""
    import torch

    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    return {path for path, module in unet.named_modules() if isinstance(module, kinds)}


def _short_name(path: str) -> str:
    """Return the end of a path that says what kind of layer it is, e.g. `to_q` or `to_out.0`."""
    parts = path.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]
