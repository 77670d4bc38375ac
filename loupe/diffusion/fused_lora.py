"""LoRA layers with fewer passes over memory than peft's: scaling and sum happen inside the product with B.

peft makes and keeps the layers, their weights and their states; here only the forward pass is another. It computes in
the dtype of its input, so with a base model in bfloat16 no activation is cast to float32 and back, which peft does
because the adapter's weights are float32. Their gradients are float32 as before. DoRA stays peft's.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Conv2d, Linear, LoraLayer
from torch import nn
from torch.nn import functional


class FusedLinear(Linear):
    """y = W x + b + scaling * B (A dropout(x)) (Hu et al. 2021, arXiv:2106.09685, eq. 3), for x [..., in]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [..., out] in the dtype of x, which is that of the base weights."""
        if self.disable_adapters:
            return self.base_layer(x)
        (slot,) = self.active_adapters
        a, b = self.lora_A[slot].weight.to(x.dtype), self.lora_B[slot].weight.to(x.dtype)
        rows, scaling = x.flatten(0, -2), self.scaling[slot]
        if x.device.type == "cpu" and torch.is_grad_enabled() and isinstance(self.lora_dropout[slot], nn.Identity):
            base = self.base_layer
            return LyingProducts.apply(rows, base.weight, base.bias, a, b, scaling).view(*x.shape[:-1], -1)
        base, dropped = self.base_layer(rows), self.lora_dropout[slot](rows)
        inner = (a @ dropped.t()).t() if x.device.type == "cpu" else functional.linear(dropped, a)
        return base.addmm_(inner, b.t(), alpha=scaling).view(*x.shape[:-1], -1)


class LyingProducts(torch.autograd.Function):
    """The same for rows [M, in] on a CPU, without dropout, with a backward pass in which thin matrices lie, [rank, M].

    A CPU multiplies by them up to ten times faster than where they stand, [M, rank], as autograd has them. The base
    weight and bias get no gradient.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 (autograd passes by position)
        ctx: Any,
        rows: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Return [M, out]."""
        inner = a @ rows.t()
        ctx.save_for_backward(rows, weight, a, b, inner)
        ctx.scaling = scaling
        return functional.linear(rows, weight, bias).addmm_(inner.t(), b.t(), alpha=scaling)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of rows (None where it is not asked for), a and b for that of the output [M, out]."""
        rows, weight, a, b, inner = ctx.saved_tensors
        of_inner = (b.t() @ gradient.t()).mul_(ctx.scaling)
        of_rows = (gradient @ weight).addmm_(of_inner.t(), a) if ctx.needs_input_grad[0] else None
        of_b = (inner @ gradient).mul_(ctx.scaling).t().contiguous()
        return of_rows, None, None, of_inner @ rows, of_b, None


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
