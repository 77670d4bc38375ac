"""What one image costs in the UNet and the VAE, in arithmetic and in memory, counted and not guessed.

The model's own forward pass runs on tensors that have a shape and no content (torch's fake tensors), while every
allocation and every matrix product is counted. So it holds for any UNet, needs no weights, and takes seconds. It
decides nothing; memory.py adds the numbers up.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from loupe.diffusion.adapter import AdapterConfig, add_adapter
from loupe.diffusion.device import DeviceKind, DevicePolicy
from loupe.diffusion.target_modules import unet_skeleton
from loupe.diffusion.unet_forward import needs_autocast


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetCost:
    """One image through the UNet with its adapter; a multiply-add counts as 2 FLOP."""

    n_base_parameters: int
    n_adapter_parameters: int
    weight_bytes: int
    """Of the base weights in the policy's dtype and the adapter's in float32."""
    forward_flop: int
    training_flop: int
    """Forward and backward. Frozen weights need no gradient, so the backward pass of a layer costs one forward pass,
    and that of an attention matrix product two."""
    checkpointed_flop: int
    """The same with gradient checkpointing."""
    kept_bytes: int
    """What the forward pass leaves for the backward pass."""
    checkpointed_bytes: int
    """The same with gradient checkpointing: the inputs of the blocks, and one block's inside."""
    largest_tensor_bytes: int
    row_bytes: int
    """The most that is alive at once beside the weights in a forward pass without gradients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingCost:
    """One picture: a row through the UNet without gradients, and a decoding in float32."""

    weight_bytes: int
    """Of the UNet in the policy's dtype, and of the VAE and the text encoder in float32: all are loaded at once."""
    row_flop: int
    """One row, one sampler step; guidance takes two rows per picture."""
    row_bytes: int
    """The most that is alive at once beside the weights."""
    decode_flop: int
    decode_bytes: int


def unet_cost(
    base: Path, *, adapter: AdapterConfig, latent_side: int, text_tokens: int, policy: DevicePolicy
) -> UNetCost:
    """Count the cost of one image of `latent_side` squared for the base model in `base` under `policy`."""
    unet = unet_skeleton(base).requires_grad_(False)
    add_adapter(
        unet, rank=adapter.rank, alpha=adapter.alpha, target_modules=adapter.target_modules,
        generator=torch.Generator(), use_dora=adapter.use_dora, use_rslora=adapter.use_rslora,
    )  # fmt: skip
    trainable = sum(p.numel() for p in unet.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in unet.parameters() if not p.requires_grad)
    trace = _trace_unet(unet, latent_side, text_tokens, policy=policy, with_gradients=True)
    row = _trace_unet(unet, latent_side, text_tokens, policy=policy, with_gradients=False)
    inside = [block.kept_bytes - block.output_bytes for block in trace.blocks]
    return UNetCost(
        n_base_parameters=frozen,
        n_adapter_parameters=trainable,
        weight_bytes=frozen * policy.dtype.itemsize + trainable * 4,
        forward_flop=trace.flop,
        training_flop=2 * trace.flop + trace.attention_flop,
        checkpointed_flop=2 * trace.flop + trace.attention_flop + sum(block.flop for block in trace.blocks),
        kept_bytes=trace.kept_bytes,
        checkpointed_bytes=trace.kept_bytes - sum(inside) + max(inside, default=0),
        largest_tensor_bytes=trace.largest_bytes,
        row_bytes=row.peak_bytes,
    )


def drawing_cost(base: Path, *, latent_side: int, text_tokens: int, policy: DevicePolicy) -> DrawingCost:
    """Count the cost of drawing one picture with the base model in `base`; an adapter adds next to nothing."""
    unet, vae = unet_skeleton(base).requires_grad_(False), _vae_skeleton(base)
    row = _trace_unet(unet, latent_side, text_tokens, policy=policy, with_gradients=False)
    with FakeTensorMode(), torch.no_grad():
        weights = empty_weights(vae.decoder, device="cpu", dtype=torch.float32)
        latents = torch.empty(1, vae.config.latent_channels, latent_side, latent_side)
        decoding = traced(lambda: torch.func.functional_call(vae.decoder, weights, (latents,)), weights=weights)
    return DrawingCost(
        weight_bytes=_n_parameters(unet) * policy.dtype.itemsize
        + (_n_parameters(vae) + _n_parameters(text_encoder_skeleton(base))) * 4,
        row_flop=row.flop,
        row_bytes=row.peak_bytes,
        decode_flop=decoding.flop,
        decode_bytes=decoding.peak_bytes,
    )


def _vae_skeleton(base: Path) -> AutoencoderKL:
    config = json.loads((base / "vae" / "config.json").read_bytes())
    with torch.device("meta"):
        return AutoencoderKL.from_config(config).requires_grad_(False)


def text_encoder_skeleton(base: Path) -> CLIPTextModel:
    """Return the text encoder of the base model in `base` with its structure and no weights (meta device)."""
    with torch.device("meta"):
        return CLIPTextModel(CLIPTextConfig.from_pretrained(base / "text_encoder"))


def _n_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@dataclass(frozen=True, slots=True)
class _Block:
    """What one recomputable block of the UNet did in the forward pass."""

    kept_bytes: int
    output_bytes: int
    flop: int


@dataclass(frozen=True, slots=True)
class Trace:
    """What a forward pass did."""

    flop: int
    attention_flop: int
    """Of the matrix products between queries, keys and values; part of `flop`."""
    kept_bytes: int
    peak_bytes: int
    largest_bytes: int
    blocks: tuple[_Block, ...]


def _trace_unet(
    unet: UNet2DConditionModel,
    latent_side: int,
    text_tokens: int,
    *,
    policy: DevicePolicy,
    with_gradients: bool,
) -> Trace:
    # Apple's GPU has no fake tensors of its own; it computes in float32 as the CPU does.
    device: DeviceKind = "cuda" if policy.device == "cuda" else "cpu"
    with FakeTensorMode(), torch.set_grad_enabled(with_gradients):
        weights = empty_weights(unet, device=device, dtype=policy.dtype)
        like = {"device": device, "dtype": policy.dtype}
        latents = torch.empty(1, unet.config.in_channels, latent_side, latent_side, **like)
        text = torch.empty(1, text_tokens, unet.config.cross_attention_dim, **like)
        timesteps = torch.zeros(1, dtype=torch.int64, device=device)

        def forward() -> Any:
            with _autocast(device, policy.dtype if needs_autocast(unet) else torch.float32):
                call = {"encoder_hidden_states": text}
                return torch.func.functional_call(unet.train(with_gradients), weights, (latents, timesteps), call)

        return traced(forward, weights=weights, watch_blocks_of=unet if with_gradients else None)


def empty_weights(model: torch.nn.Module, *, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return fake weights by name: frozen ones in `dtype`, trainable ones in float32."""
    return {
        name: torch.empty(p.shape, device=device, dtype=torch.float32 if p.requires_grad else dtype).requires_grad_(
            p.requires_grad
        )
        for name, p in model.named_parameters()
    }


def traced(
    forward: Callable[[], Any],
    *,
    weights: Mapping[str, torch.Tensor],
    watch_blocks_of: UNet2DConditionModel | None = None,
) -> Trace:
    """Run `forward` on fake tensors and count; `weights` are there already, so their bytes do not count."""
    memory, attention, flops = _LiveBytes(weights.values()), _FusedAttention(), FlopCounterMode(display=False)
    blocks: list[_Block] = []

    def watched(block: Callable[..., Any], *inputs: Any) -> Any:
        before, flop_before = memory.live, flops.get_total_flops() + attention.flop
        output = block(*inputs)
        flop = flops.get_total_flops() + attention.flop - flop_before
        blocks.append(_Block(memory.live - before, _bytes_of(output), flop))
        return output

    if watch_blocks_of is not None:
        # Where diffusers would recompute a block in the backward pass, it is measured instead.
        watch_blocks_of.enable_gradient_checkpointing(watched)
    with attention, flops, memory:
        output = forward()
        kept = memory.live
    del output
    flop = flops.get_total_flops() + attention.flop
    return Trace(flop, attention.flop, kept, memory.peak, memory.largest, tuple(blocks))


def _bytes_of(output: Any) -> int:
    return sum(t.untyped_storage().nbytes() for t in tree_leaves(output) if isinstance(t, torch.Tensor))


@contextmanager
def _autocast(device: DeviceKind, dtype: torch.dtype) -> Iterator[None]:
    """Autocast as DevicePolicy.autocast has it, also for a device that is not here."""
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    if dtype != torch.float32:
        torch.set_autocast_dtype(device, dtype)
    torch.set_autocast_enabled(device, dtype != torch.float32)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages made while it is on, as long as they live; those of `known` tensors never."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.live = self.peak = self.largest = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        size = self._sizes[key] = storage.nbytes()
        self.live += size
        self.peak, self.largest = max(self.peak, self.live), max(self.largest, size)
        weakref.finalize(storage, self._forget, key).atexit = False

    def _forget(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


class _FusedAttention(TorchFunctionMode):
    """Counts attention as a fused kernel does it: q, k, v and the output are kept, never the matrix between them.

    Which kernel torch would choose depends on the device, which may not be this machine's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = (args + tuple((kwargs or {}).get(name) for name in ("query", "key", "value")[len(args) :]))[
            :3
        ]
        rows = query.numel() // query.shape[-1]
        self.flop += 2 * rows * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        return _Fused.apply(query, key, value)


class _Fused(torch.autograd.Function):
    """Keeps what the backward pass of fused attention needs; it is never run backwards."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, output)
        return output
