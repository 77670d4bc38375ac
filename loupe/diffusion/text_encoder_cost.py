"""What training the text encoder beside the UNet costs, counted as cost_model.py counts the UNet.

One caption per image goes through it, with gradients, in float32 on every device. It decides nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from loupe.diffusion.adapter import AdapterConfig
from loupe.diffusion.cost_model import UNetCost, empty_weights, text_encoder_skeleton, traced
from loupe.diffusion.text_adapter import add_text_adapter


def with_text_encoder(cost: UNetCost, base: Path, *, adapter: AdapterConfig, text_tokens: int) -> UNetCost:
    """Return `cost` of one image with the text encoder's share added; its activations are never recomputed."""
    text_encoder = text_encoder_skeleton(base).requires_grad_(False)
    add_text_adapter(text_encoder, adapter, generator=torch.Generator())
    trainable = sum(p.numel() for p in text_encoder.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in text_encoder.parameters() if not p.requires_grad)
    with FakeTensorMode():
        weights = empty_weights(text_encoder, device="cpu", dtype=torch.float32)
        ids = torch.zeros(1, text_tokens, dtype=torch.int64)
        call = {"position_ids": torch.zeros_like(ids)}
        trace = traced(lambda: torch.func.functional_call(text_encoder, weights, (ids,), call)[0], weights=weights)
    backward_flop = trace.flop + trace.attention_flop
    return replace(
        cost,
        n_base_parameters=cost.n_base_parameters + frozen,
        n_adapter_parameters=cost.n_adapter_parameters + trainable,
        weight_bytes=cost.weight_bytes + 4 * (frozen + trainable),
        forward_flop=cost.forward_flop + trace.flop,
        training_flop=cost.training_flop + trace.flop + backward_flop,
        checkpointed_flop=cost.checkpointed_flop + trace.flop + backward_flop,
        kept_bytes=cost.kept_bytes + trace.kept_bytes,
        checkpointed_bytes=cost.checkpointed_bytes + trace.kept_bytes,
    )
