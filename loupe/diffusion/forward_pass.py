"""One forward and backward pass of training: adds a batch's gradients to the adapter's and returns its loss.

On a GPU the pass is recorded once and replayed (cuda_graph.py); on a CPU the cores share out the batch
(cpu_shares.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING

from loupe.diffusion.batches import Batch
from loupe.diffusion.cpu_shares import n_shares, side_by_side
from loupe.diffusion.cuda_graph import graphs_are_wanted, record
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.noise import seeded_layers
from loupe.diffusion.train_settings import TrainSettings
from loupe.diffusion.unet_forward import needs_autocast, predict

if TYPE_CHECKING:
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel


class ForwardPass:
    """The pass, kernel by kernel."""

    keeps_gradients = False
    """Whether the parameters' gradient tensors must stay the same ones from step to step."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        *,
        settings: TrainSettings,
        policy: DevicePolicy,
        text_encoder: CLIPTextModel | None = None,
    ) -> None:
        import torch

        self.settings = settings
        self.policy = policy
        self._text_encoder = text_encoder
        self._unet = torch.compile(unet, dynamic=False) if settings.compile else unet
        self._autocast = needs_autocast(unet)

    def __call__(self, batch: Batch, *, first: int, scaler: torch.amp.GradScaler) -> torch.Tensor:
        """Return the batch's part of its step's mean loss, a scalar on the device; `first` is its first visit."""
        return self._run(batch.to(self.policy.device), first, scaler)

    def _run(self, batch: Batch, first: int, scaler: torch.amp.GradScaler) -> torch.Tensor:
        with self._dropout(first):
            loss = self._loss(batch)
            scaler.scale(loss).backward()
        return loss.detach()

    def _loss(self, batch: Batch) -> torch.Tensor:
        text = self._vectors(batch.text)
        predicted = predict(self._unet, batch.noisy, batch.timesteps, text, policy=self.policy, autocast=self._autocast)
        squared_error = (predicted - batch.target).square().mean(dim=(1, 2, 3))
        return (batch.weights * squared_error).sum() / self.settings.effective_batch_size

    def _vectors(self, text: torch.Tensor) -> torch.Tensor:
        """Return the text vectors of a batch. A trained text encoder computes them in float32, as it does to draw."""
        return text if self._text_encoder is None else self._text_encoder(text).last_hidden_state

    def _dropout(self, first: int) -> AbstractContextManager[None]:
        """Return the context of the forward pass over the visits from `first` on: its place in the run seeds it."""
        if self.settings.lora_dropout == 0:
            return nullcontext()
        return seeded_layers(self.policy.device, self.settings.seed, "lora dropout", first)


class RecordedPass(ForwardPass):
    """The pass as one CUDA graph, recorded at the first call; `parameters` are all that get a gradient."""

    keeps_gradients = True

    def __init__(
        self,
        unet: UNet2DConditionModel,
        *,
        parameters: Iterable[torch.nn.Parameter],
        settings: TrainSettings,
        policy: DevicePolicy,
    ) -> None:
        super().__init__(unet, settings=settings, policy=policy)
        self._parameters = list(parameters)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch
        self._loss: torch.Tensor

    def __call__(self, batch: Batch, *, first: int, scaler: torch.amp.GradScaler) -> torch.Tensor:
        """Return the loss as ForwardPass does. Raises PipelineError when the pass cannot be recorded."""
        moved = batch.to(self.policy.device)
        if self._graph is None:
            self._record(moved, first, scaler)
        for field in fields(Batch):
            getattr(self._batch, field.name).copy_(getattr(moved, field.name))
        self._graph.replay()
        return self._loss.clone()

    def _record(self, batch: Batch, first: int, scaler: torch.amp.GradScaler) -> None:
        import torch

        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._batch = batch
        self._graph, self._loss = record(lambda: self._run(batch, first, scaler), what="The training step")
        torch._foreach_zero_([parameter.grad for parameter in self._parameters])


class SharedPass(ForwardPass):
    """The pass in shares of the batch, side by side on a CPU; `parameters` are all that get a gradient.

    The shares' losses and gradients are added up in the shares' order, so the same ones come out every time.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        *,
        parameters: Iterable[torch.nn.Parameter],
        n_shares: int,
        settings: TrainSettings,
        policy: DevicePolicy,
    ) -> None:
        super().__init__(unet, settings=settings, policy=policy)
        self._parameters = list(parameters)
        self._n_shares = n_shares

    def _run(self, batch: Batch, first: int, scaler: torch.amp.GradScaler) -> torch.Tensor:
        import torch

        tensors = (getattr(batch, field.name) for field in fields(Batch))
        losses, gradients = zip(*side_by_side(self._share, *tensors, n_shares=self._n_shares), strict=True)
        for parameter, *parts in zip(self._parameters, *gradients, strict=True):
            gradient = torch.stack(parts).sum(dim=0)
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return torch.stack(losses).sum()

    def _share(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        import torch

        loss = self._loss(Batch(*tensors))
        return loss.detach(), torch.autograd.grad(loss, self._parameters)


def records_steps(settings: TrainSettings, *, autocasts: bool, policy: DevicePolicy) -> bool:
    """Say whether steps are recorded, for the reasons in `forward_pass`, as long as activations are not recomputed."""
    plain = settings.lora_dropout == 0 and not settings.train_text_encoder and not autocasts
    return policy.device == "cuda" and plain and graphs_are_wanted()


def forward_pass(
    unet: UNet2DConditionModel,
    parameters: Iterable[torch.nn.Parameter],
    *,
    settings: TrainSettings,
    policy: DevicePolicy,
    text_encoder: CLIPTextModel | None = None,
) -> ForwardPass:
    """Return the pass to train `parameters` with: recorded on a GPU, in shares on a CPU, where that can be.

    Dropout sets random states from the host, and a text encoder decides there how it masks; on a GPU gradient
    checkpointing does the former too, and autocast (DoRA) keeps casts between passes. So none of these is recorded or
    shared out; nor is anything recorded when the variable LOUPE_CUDA_GRAPH is `off`. What is compiled, or not in
    float32, is not shared out.
    """
    import torch

    plain = settings.lora_dropout == 0 and text_encoder is None
    if records_steps(settings, autocasts=needs_autocast(unet), policy=policy):
        if not unet.is_gradient_checkpointing:
            return RecordedPass(unet, parameters=parameters, settings=settings, policy=policy)
    elif policy.device == "cpu" and plain and not settings.compile and policy.dtype_name == "float32":
        shares = n_shares(settings.batch_size, n_threads=torch.get_num_threads())
        if shares > 1:
            return SharedPass(unet, parameters=parameters, n_shares=shares, settings=settings, policy=policy)
    return ForwardPass(unet, settings=settings, policy=policy, text_encoder=text_encoder)
