"""LoRA layers with fewer passes over memory than peft's: scaling and sum happen inside the product with B.

peft makes and keeps the layers, their weights and their states; here only the forward pass is another. It computes in
the dtype of its input, so with a base model in bfloat16 no activation is cast to float32 and back, which peft does
because the adapter's weights are float32. Their gradients are float32 as before. DoRA stays peft's.
"""

from __future__ import annotations

import torch
from peft.tuners.lora import Conv2d, Linear, LoraLayer
from torch.nn import functional


class FusedLinear(Linear):
    """y = W x + b + scaling * B (A dropout(x)) (Hu et al. 2021, arXiv:2106.09685, eq. 3), for x [..., in]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [..., out] in the dtype of x, which is that of the base weights."""
        if self.disable_adapters:
            return self.base_layer(x)
        (slot,) = self.active_adapters
        a, b = self.lora_A[slot].weight.to(x.dtype), self.lora_B[slot].weight.to(x.dtype)
        rows = x.flatten(0, -2)
        base, dropped = self.base_layer(rows), self.lora_dropout[slot](rows)
        # A CPU multiplies by a long thin matrix faster where it lies, [rank, M], than where it stands.
        inner = (a @ dropped.t()).t() if x.device.type == "cpu" else functional.linear(dropped, a)
        return base.addmm_(inner, b.t(), alpha=self.scaling[slot]).view(*x.shape[:-1], -1)


class FusedConv2d(Conv2d):
    """The same for a convolution: A has its kernel, B is 1 x 1; x is [B, C, H, W]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [B, out, H', W'] in the dtype of x, which is that of the base weights."""
        base = self.base_layer(x)
        if self.disable_adapters:
            return base
        (slot,) = self.active_adapters
        a, b = self.lora_A[slot], self.lora_B[slot]
        dropped = self.lora_dropout[slot](x)
        inner = functional.conv2d(dropped, a.weight.to(x.dtype), None, a.stride, a.padding, a.dilation, a.groups)
        outer = functional.conv2d(inner, b.weight.to(x.dtype), groups=b.groups)
        return torch.add(base, outer, alpha=self.scaling[slot])


_FUSED = {Linear: FusedLinear, Conv2d: FusedConv2d}


def fuse(layer: LoraLayer) -> None:
    """Give a plain LoRA layer of peft the forward pass above, in place; one with DoRA is left as it is."""
    kind = _FUSED.get(type(layer))
    if kind is not None and not layer.lora_variant:
        layer.__class__ = kind


def is_fused(layer: torch.nn.Module) -> bool:
    """Say whether a layer computes as above."""
    return isinstance(layer, FusedLinear | FusedConv2d)
