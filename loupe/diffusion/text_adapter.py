"""The text encoder's adapter beside the UNet's: where it goes, how one state names both, and where its files lie.

It has the rank, alpha and kind of the UNet's, and goes to the attention of every layer of the CLIP text encoder. In a
state that holds both, its keys begin with `text_encoder.`, and the UNet's are as they are alone. It trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.diffusion.adapter import (
    AdapterConfig,
    AdapterState,
    adapter_parameters,
    add_adapter,
    save_adapter,
    set_adapter_state,
)

if TYPE_CHECKING:
    import torch

TEXT_FOLDER = "text_encoder"
"""In a checkpoint's folder, the one that holds the text encoder's adapter."""
TEXT_LAYERS = ("k_proj", "out_proj", "q_proj", "v_proj")
TEXT_PREFIX = "text_encoder."
"""Of the text encoder's keys in a state that holds both adapters."""


@dataclass(frozen=True, slots=True)
class AdaptedModels:
    """The models that are trained together, each with its adapter: the UNet, and the text encoder where it is one."""

    unet: torch.nn.Module
    text_encoder: torch.nn.Module | None = None

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Return the adapters' parameters themselves, keyed as the module's docstring says, the UNet's first."""
        of_text = {} if self.text_encoder is None else adapter_parameters(self.text_encoder)
        return {**adapter_parameters(self.unet), **{TEXT_PREFIX + key: parameter for key, parameter in of_text.items()}}

    def state(self) -> AdapterState:
        """Return a copy of the adapters' weights on the CPU, float32, keyed alike."""
        return {key: weight.detach().cpu().clone().contiguous() for key, weight in self.parameters().items()}

    def set_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Overwrite the adapters' weights in place; a state of other models is a PipelineError."""
        if self.text_encoder is None:
            set_adapter_state(self.unet, state)
            return
        of_unet, of_text = split_state(state)
        set_adapter_state(self.unet, of_unet)
        set_adapter_state(self.text_encoder, of_text)


def split_state(state: Mapping[str, torch.Tensor]) -> tuple[AdapterState, AdapterState]:
    """Return the UNet's part and the text encoder's, each keyed as it is alone; the latter is empty without one."""
    of_unet = {key: tensor for key, tensor in state.items() if not key.startswith(TEXT_PREFIX)}
    of_text = {key.removeprefix(TEXT_PREFIX): tensor for key, tensor in state.items() if key.startswith(TEXT_PREFIX)}
    return of_unet, of_text


def text_adapter_config(config: AdapterConfig) -> AdapterConfig:
    """Return the configuration of the text encoder's adapter beside a UNet's adapter of `config`."""
    return replace(config, target_modules=TEXT_LAYERS)


def add_text_adapter(
    text_encoder: torch.nn.Module, config: AdapterConfig, *, generator: torch.Generator, dropout: float = 0.0
) -> None:
    """Give the text encoder a fresh adapter beside a UNet's of `config`, in place, ready to be trained.

    As add_adapter does. The encoder stays in evaluation mode but for the adapter: CLIP's own dropout draws from the
    global generator, which nothing seeds, and the base model was shipped without it.
    """
    from peft.tuners.lora import LoraLayer

    add_adapter(
        text_encoder,
        rank=config.rank,
        alpha=config.alpha,
        target_modules=TEXT_LAYERS,
        generator=generator,
        use_dora=config.use_dora,
        use_rslora=config.use_rslora,
        dropout=dropout,
    )
    text_encoder.eval()
    for module in text_encoder.modules():
        if isinstance(module, LoraLayer):
            module.train()


def save_adapters(folder: Path, state: Mapping[str, torch.Tensor], config: AdapterConfig) -> None:
    """Write a checkpoint's adapters in PEFT form: the UNet's to `folder`, the text encoder's, if any, below it."""
    of_unet, of_text = split_state(state)
    save_adapter(folder, of_unet, config)
    if of_text:
        save_adapter(folder / TEXT_FOLDER, of_text, text_adapter_config(config))
