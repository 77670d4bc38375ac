"""DoRA's row lengths in float32, whatever the base model's dtype: peft takes those of convolutions in the base's own.

In bfloat16 a length is off by up to 0.4 %, so a fresh adapter would already change the picture. All else is peft's.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.dora import DoraConv2dLayer


class ConvolutionLengths(DoraConv2dLayer):
    """peft's DoRA of a convolution, with lengths in float32 under autocast too."""

    def get_weight_norm(
        self, weight: torch.Tensor, lora_weight: torch.Tensor, scaling: float, adapter_name: str | None = None
    ) -> torch.Tensor:
        """Return the length of every row of weight + scaling * lora_weight, [1, out, 1, 1]."""
        # A tensor without content, of which only the cost is wanted, knows no autocast.
        with nullcontext() if weight.is_meta else torch.autocast(weight.device.type, enabled=False):
            return super().get_weight_norm(weight.float(), lora_weight.float(), scaling, adapter_name=adapter_name)


def start_at_base_lengths(layer: LoraLayer, slot: str) -> None:
    """Set the layer's magnitudes to the float32 row lengths of its base weight, which the forward pass divides by."""
    magnitudes: Any = layer.lora_magnitude_vector[slot]
    if isinstance(magnitudes, DoraConv2dLayer):
        magnitudes = ConvolutionLengths(fan_in_fan_out=False)
        layer.lora_magnitude_vector[slot] = magnitudes
    weight = layer.get_base_layer().weight.detach().float()
    magnitudes.weight = torch.nn.Parameter(magnitudes.get_weight_norm(weight, torch.zeros_like(weight), 1.0))
