"""The LoRA adapter of a model, the UNet or text encoder: adding it, its state, its files, swapping one for another.

There is one adapter slot per model, never one per checkpoint, since every further slot costs time at each forward pass.
Weights are float32 whatever the base model's dtype. It neither trains nor converts to other tools' formats.

A state maps `<layer path>.lora_A.weight` [rank, in] and `<layer path>.lora_B.weight` [out, rank] (convolutions in 4-D),
e.g. `mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight`; the update is alpha / rank * B @ A (Hu et
al. 2021, arXiv:2106.09685), or alpha / sqrt(rank) * B @ A for rank-stabilised LoRA (Kalajdzievski 2023,
arXiv:2312.03732). DoRA (Liu et al. 2024, arXiv:2402.09353) adds `<layer path>.lora_magnitude_vector`, the length of
every row of the adapted weight: [out], of a convolution [1, out, 1, 1].
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loupe.atomic_io import write_bytes, write_json
from loupe.diffusion.target_modules import target_problems
from loupe.diffusion.tensor_files import read_metadata, read_tensors, tensor_bytes
from loupe.errors import PipelineError, problems_message

if TYPE_CHECKING:
    import torch
    from peft.tuners.lora import LoraLayer

AdapterState = dict[str, "torch.Tensor"]
WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
MAGNITUDE = ".lora_magnitude_vector"
"""End of the key of a layer's DoRA magnitudes."""
_SLOT = "default"
_PEFT_PREFIX = "base_model.model."
_METADATA_KEY = "lora_adapter_metadata"


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What an adapter's tensors do not say by themselves; without alpha its strength is lost."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    base_model: str
    use_dora: bool = False
    use_rslora: bool = False

    @property
    def scaling(self) -> float:
        """The factor on B @ A."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)


def add_adapter(
    model: torch.nn.Module,
    *,
    rank: int,
    alpha: float,
    target_modules: Sequence[str],
    generator: torch.Generator,
    use_dora: bool = False,
    use_rslora: bool = False,
    dropout: float = 0.0,
) -> None:
    """Give `model` one fresh adapter, in place: A Kaiming-uniform from `generator` (CPU), B zero, float32, trainable.

    So the adapted model starts as the base model exactly. The base weights are left frozen. `dropout` acts in training
    mode and draws from the global generator, which the caller seeds. Raises PipelineError for target modules that match
    no layer, with the nearest layer names.
    """
    import torch

    config = AdapterConfig(rank, alpha, tuple(target_modules), "", use_dora=use_dora, use_rslora=use_rslora)
    _inject(model, config, dropout=dropout)
    for _, layer in _adapter_layers(model):
        a, b = layer.lora_A[_SLOT].weight, layer.lora_B[_SLOT].weight
        # peft's own bound, 1 / sqrt(fan in), but drawn from the generator that was given.
        drawn = torch.empty(a.shape, dtype=torch.float32)
        torch.nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        with torch.no_grad():
            a.copy_(drawn)
            b.zero_()


def adapter_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the adapter's parameters themselves, keyed as the module's docstring says, in the order of the paths."""
    parameters = {}
    for path, layer in _adapter_layers(model):
        parameters[f"{path}.lora_A.weight"] = layer.lora_A[_SLOT].weight
        parameters[f"{path}.lora_B.weight"] = layer.lora_B[_SLOT].weight
        if _SLOT in layer.lora_magnitude_vector:
            parameters[path + MAGNITUDE] = layer.lora_magnitude_vector[_SLOT].weight
    return parameters


def adapter_state(model: torch.nn.Module) -> AdapterState:
    """Return a copy of the adapter's weights on the CPU, float32, keyed as the module's docstring says."""
    return {key: weight.detach().cpu().clone().contiguous() for key, weight in adapter_parameters(model).items()}


def set_adapter_state(model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Overwrite the adapter's weights in place; a state of another architecture is a PipelineError."""
    import torch

    slots = adapter_parameters(model)
    wrong = sorted(slots.keys() ^ state.keys())
    wrong += [key for key in slots.keys() & state.keys() if slots[key].shape != state[key].shape]
    if wrong:
        raise PipelineError(
            f"The adapter does not fit this {type(model).__name__}: {len(wrong)} of its tensors are missing, unknown "
            f"or of another shape (first: {wrong[0]}). It belongs to another base model, rank or set of target modules."
        )
    with torch.no_grad():
        for key, slot in slots.items():
            slot.copy_(state[key])


def set_adapter_enabled(model: torch.nn.Module, enabled: bool) -> None:
    """Switch the adapter on or off; off, the model computes exactly what the base model does."""
    for _, layer in _adapter_layers(model):
        layer.enable_adapters(enabled)


def adapter_is_on(model: torch.nn.Module) -> bool:
    """Say whether the model has an adapter that takes part in its forward pass."""
    from peft.tuners.lora import LoraLayer

    first = next((module for module in model.modules() if isinstance(module, LoraLayer)), None)
    return first is not None and not first.disable_adapters


def save_adapter(folder: Path, state: Mapping[str, torch.Tensor], config: AdapterConfig) -> None:
    """Write `state` in PEFT form to `folder`: adapter_model.safetensors and, last, adapter_config.json.

    The same state gives the same bytes. The adapter's configuration is in the weights' header as well, so alpha
    survives when a person takes that one file.
    """
    content = {
        "peft_type": "LORA",
        "base_model_name_or_path": config.base_model,
        "r": config.rank,
        "lora_alpha": _as_number(config.alpha),
        "target_modules": sorted(config.target_modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "use_dora": config.use_dora,
        "use_rslora": config.use_rslora,
    }
    tensors = {f"{_PEFT_PREFIX}{key}": tensor for key, tensor in state.items()}
    header = {"format": "pt", _METADATA_KEY: json.dumps(content, sort_keys=True)}
    write_bytes(folder / WEIGHTS_FILE, tensor_bytes(tensors, metadata=header))
    write_json(folder / CONFIG_FILE, content)


def read_adapter(folder: Path) -> tuple[AdapterState, AdapterConfig]:
    """Read an adapter's state and configuration back; PipelineError where a file is missing or damaged.

    Both files say how strong the adapter is; only the weights' hash is known to others, so they must agree.
    """
    tensors = read_tensors(folder / WEIGHTS_FILE, made_by="train")
    try:
        content = json.loads((folder / CONFIG_FILE).read_bytes())
        in_weights = json.loads(read_metadata(folder / WEIGHTS_FILE).get(_METADATA_KEY, "null"))
        if in_weights not in (None, content):
            raise ValueError(f"it is not what {WEIGHTS_FILE} says")
        config = AdapterConfig(
            rank=content["r"],
            alpha=content["lora_alpha"],
            target_modules=tuple(content["target_modules"]),
            base_model=content["base_model_name_or_path"],
            use_dora=content["use_dora"],
            use_rslora=content["use_rslora"],
        )
    except FileNotFoundError:
        raise PipelineError(f"{folder / CONFIG_FILE} is not there. Run: dvc repro train") from None
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(
            f"{folder / CONFIG_FILE} is damaged ({type(error).__name__}: {error}). "
            f"Make it anew: dvc repro --force train"
        ) from None
    return {key.removeprefix(_PEFT_PREFIX): value for key, value in tensors.items()}, config


def load_adapter(model: torch.nn.Module, folder: Path) -> None:
    """Put the adapter of `folder` into the model's one slot, in place, and switch it on.

    The first call adds the slot; later calls overwrite its weights, which needs the same rank, strength, target modules
    and kind (PipelineError otherwise).
    """
    state, config = read_adapter(folder)
    layers = dict(_adapter_layers(model))
    if not layers:
        _inject(model, config)
        layers = dict(_adapter_layers(model))
    strengths = {layer.scaling[_SLOT] for layer in layers.values()}
    if strengths != {config.scaling}:
        raise PipelineError(
            f"{folder} multiplies its update by {config.scaling:g}, the adapter that is loaded by "
            f"{', '.join(f'{s:g}' for s in sorted(strengths))}: they cannot share a slot."
        )
    set_adapter_state(model, state)
    set_adapter_enabled(model, True)


def _inject(model: torch.nn.Module, config: AdapterConfig, *, dropout: float = 0.0) -> None:
    """Add the slot in float32, without meaning in its A and B; magnitudes are those of the base weights."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    from loupe.diffusion.dora import start_at_base_lengths
    from loupe.diffusion.fused_lora import fuse

    problems = target_problems(model, config.target_modules)
    if problems:
        raise PipelineError(problems_message("train.target_modules", problems))
    theirs = LoraConfig(
        r=config.rank,
        lora_alpha=_as_number(config.alpha),
        target_modules=list(config.target_modules),
        lora_dropout=dropout,
        use_dora=config.use_dora,
        use_rslora=config.use_rslora,
    )
    # peft fills the new layers from the global generator before they are overwritten; that must not be felt outside.
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(theirs, model, adapter_name=_SLOT)
    for _, layer in _adapter_layers(model):
        layer.lora_A[_SLOT].float()
        layer.lora_B[_SLOT].float()
        fuse(layer)
        if config.use_dora:
            start_at_base_lengths(layer, _SLOT)


def _adapter_layers(model: torch.nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """Yield (path, layer) of every layer that has the adapter, sorted by path."""
    from peft.tuners.lora import LoraLayer

    found = [(path, module) for path, module in model.named_modules() if isinstance(module, LoraLayer)]
    yield from sorted(found, key=lambda pair: pair[0])


def _as_number(alpha: float) -> Any:
    return int(alpha) if float(alpha).is_integer() else alpha
