"""One forward pass of a UNet with or without an adapter, in the policy's dtype: to train, validate and draw."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loupe.diffusion.adapter import adapter_is_on
from loupe.diffusion.cpu_shares import n_shares, side_by_side
from loupe.diffusion.cuda_graph import graphs_are_wanted, record
from loupe.diffusion.fused_lora import is_fused

if TYPE_CHECKING:
    import torch
    from diffusers import UNet2DConditionModel

    from loupe.diffusion.device import DevicePolicy


def needs_autocast(unet: Callable[..., Any]) -> bool:
    """Say whether a layer of the UNet hands on float32 whatever it is given, as peft's own layers (DoRA) do.

    Without such a layer everything stays in the base model's dtype. Under autocast norms would give float32 that the
    next layer casts back.
    """
    from peft.tuners.lora import LoraLayer
    from torch import nn

    modules = unet.modules() if isinstance(unet, nn.Module) else ()
    return any(isinstance(module, LoraLayer) and not is_fused(module) for module in modules)


def predict(
    unet: Callable[..., Any],
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    text: torch.Tensor,
    *,
    policy: DevicePolicy,
    autocast: bool,
) -> torch.Tensor:
    """Return the float32 prediction [B, C, h, w] for noised latents of that shape and text vectors [B, T, D].

    `unet` may be its compiled form; `autocast` is needs_autocast of the UNet itself. Timesteps are [B] or one for all.
    """
    with policy.autocast() if autocast else nullcontext():
        predicted = unet(noisy.to(policy.dtype), timesteps, encoder_hidden_states=text.to(policy.dtype)).sample
    return predicted.float()


class UNetForward:
    """A UNet's forward pass without gradients, to draw and to validate; on a CPU the cores share out the rows.

    `recorded` (on a GPU, see cuda_graph.py) records it at the first call with each shape, once with and once without
    the adapter. The adapter's weights may be overwritten in between; its layers must be there or not from the first
    call on, or come after calls without. DoRA, which computes under autocast, is not recorded.
    """

    def __init__(self, unet: UNet2DConditionModel, *, policy: DevicePolicy, recorded: bool = False) -> None:
        self.unet = unet
        self.policy = policy
        self._records = recorded and policy.device == "cuda" and graphs_are_wanted()
        self._recordings: dict[Hashable, _Recording] = {}

    def __call__(self, noisy: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Return the prediction [B, C, h, w] float32, a tensor of its own, for noised latents and text of B rows.

        The timesteps are [B] or one for all. On a CPU the last bits depend on B, but not on the other rows.
        """
        import torch

        with torch.no_grad():
            if self.policy.device == "cpu":
                return self._run_in_shares(noisy, timestep, text)
            if not self._records or needs_autocast(self.unet):
                return self._run(noisy, timestep, text)
            key = (noisy.shape, text.shape, adapter_is_on(self.unet))
            if key not in self._recordings:
                self._recordings[key] = self._record(noisy, timestep, text)
            return self._recordings[key].replay(noisy, timestep, text)

    def _run(self, noisy: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return predict(self.unet, noisy, timestep, text, policy=self.policy, autocast=needs_autocast(self.unet))

    def _run_in_shares(self, noisy: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        import torch

        count = n_shares(len(noisy), n_threads=torch.get_num_threads())
        if count == 1:
            return self._run(noisy, timestep, text)
        return torch.cat(side_by_side(self._run, noisy, timestep.expand(len(noisy)), text, n_shares=count))

    def _record(self, *inputs: torch.Tensor) -> _Recording:
        buffers = [tensor.clone() for tensor in inputs]
        return _Recording(*record(lambda: self._run(*buffers), what="Drawing"), buffers)


@dataclass(frozen=True, slots=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    output: torch.Tensor
    inputs: Sequence[torch.Tensor]

    def replay(self, *inputs: torch.Tensor) -> torch.Tensor:
        for buffer, tensor in zip(self.inputs, inputs, strict=True):
            buffer.copy_(tensor)
        self.graph.replay()
        return self.output.clone()
