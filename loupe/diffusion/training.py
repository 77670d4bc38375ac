"""Training the adapter: a generator of frozen rows, one per optimizer step.

The caller owns the progress bar, the CSV and the cadence of checkpoints. Here nothing is read or written, no VAE and no
text encoder is in memory, and nothing depends on how often a run was interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loupe.diffusion.adapter import AdapterState, adapter_parameters, adapter_state, set_adapter_state
from loupe.diffusion.batches import Batch, NoiseSchedule, make_batch
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.ema import MovingAverage
from loupe.diffusion.latent_files import Examples
from loupe.diffusion.noise import seeded_layers, visits
from loupe.diffusion.optimizers import (
    OptimizerName,
    OptimizerState,
    make_optimizer,
    optimizer_state,
    restore_optimizer,
)
from loupe.diffusion.processes import ALONE, Processes
from loupe.errors import PipelineError
from loupe.records import TrainRow

if TYPE_CHECKING:
    import torch
    from diffusers import UNet2DConditionModel

LOSS_SMOOTHING = 0.98
"""Decay of the smoothed loss: a window of about 50 steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """Numbers that decide the weights; the meaning of each is in TrainParams."""

    seed: int
    max_steps: int
    batch_size: int
    gradient_accumulation_steps: int
    compile: bool
    optimizer: OptimizerName
    learning_rate: float
    lr_scheduler: Literal["constant", "linear", "cosine"]
    lr_warmup_steps: int
    adam_betas: tuple[float, float]
    adam_epsilon: float
    weight_decay: float
    max_grad_norm: float
    lora_dropout: float
    ema_decay: float | None
    noise_offset: float
    snr_gamma: float | None
    caption_dropout: float
    processes: int = 1
    """That compute a step together; each makes `gradient_accumulation_steps` of its forward passes."""

    @property
    def forward_passes(self) -> int:
        """Forward passes per optimizer step, over all processes."""
        return self.gradient_accumulation_steps * self.processes

    @property
    def effective_batch_size(self) -> int:
        """Examples per optimizer step, over all processes."""
        return self.batch_size * self.forward_passes


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Everything one step hands to the next: adapter, its average, the optimizer, the loss scaler, the rows so far.

    There is no generator state: draws belong to the visit (noise.py), dropout and the learning rate to the step.
    """

    adapter: AdapterState
    average: AdapterState
    """The moving average of the adapter; empty unless settings.ema_decay is given."""
    optimizer: OptimizerState
    scaler: dict[str, float]
    """Of torch.amp.GradScaler; empty unless the policy computes in float16."""
    rows: tuple[TrainRow, ...]
    """One per step done."""

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return len(self.rows)

    @property
    def checkpoint_adapter(self) -> AdapterState:
        """What a checkpoint holds: the averaged weights where there are some, else the weights."""
        return self.average or self.adapter


class Trainer:
    """A UNet with its adapter and optimizer, at some step of a run.

    With several processes each has such a trainer, and all hold the same weights after every step.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        examples: Examples,
        *,
        schedule: NoiseSchedule,
        settings: TrainSettings,
        policy: DevicePolicy,
        processes: Processes = ALONE,
    ) -> None:
        import torch

        self.unet = unet.train()
        self.examples = examples
        self.schedule = schedule
        self.settings = settings
        self.policy = policy
        self.processes = processes
        self.parameters = adapter_parameters(unet)
        self.optimizer = make_optimizer(
            settings.optimizer,
            self.parameters,
            learning_rate=settings.learning_rate,
            betas=settings.adam_betas,
            epsilon=settings.adam_epsilon,
            weight_decay=settings.weight_decay,
        )
        decay = settings.ema_decay
        self.average = None if decay is None else MovingAverage(self.parameters, decay=decay)
        self._predict = torch.compile(self.unet) if settings.compile else self.unet
        self.scaler = torch.amp.GradScaler(policy.device, enabled=policy.dtype_name == "float16")
        self.rows: list[TrainRow] = []
        self._ready: dict[int, Batch] = {}
        """The batch of the next forward pass, by its first visit."""

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return len(self.rows)

    def run(self, until: int) -> Iterator[TrainRow]:
        """Train up to and including step `until`, yielding a row after each step.

        Raises PipelineError when a loss or gradient is not finite, before that step has changed any weight.
        """
        while self.step < until:
            step = self.step + 1
            learning_rate = learning_rate_at(step, self.settings)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            loss, grad_norm = self._gradients(step)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.average is not None:
                self.average.update(self.parameters, step=step)
            previous = self.rows[-1].loss_smoothed if self.rows else 0.0
            row = TrainRow(
                step=step,
                loss=loss,
                loss_smoothed=smoothed_loss(previous, loss, step=step),
                learning_rate=learning_rate,
                grad_norm=grad_norm,
            )
            self.rows.append(row)
            yield row

    @contextmanager
    def checkpoint_weights(self) -> Iterator[None]:
        """Have the weights that a checkpoint would hold in the UNet for the length of the block."""
        if self.average is None:
            yield
            return
        trained = {key: parameter.detach().clone() for key, parameter in self.parameters.items()}
        set_adapter_state(self.unet, self.average.weights)
        try:
            yield
        finally:
            set_adapter_state(self.unet, trained)

    def state(self) -> TrainingState:
        """Return a copy of everything the next step needs, on the CPU."""
        averages = {} if self.average is None else self.average.weights
        return TrainingState(
            adapter=adapter_state(self.unet),
            average={key: weight.cpu().clone() for key, weight in averages.items()},
            optimizer=optimizer_state(self.optimizer, self.parameters),
            scaler=self.scaler.state_dict(),
            rows=tuple(self.rows),
        )

    def restore(self, state: TrainingState) -> None:
        """Go on from `state` as if this trainer had made its steps itself."""
        set_adapter_state(self.unet, state.adapter)
        if self.average is not None:
            self.average.load(state.average)
        restore_optimizer(self.optimizer, self.parameters, state.optimizer)
        self.scaler.load_state_dict(dict(state.scaler))
        self.rows = list(state.rows)

    def _gradients(self, step: int) -> tuple[float, float]:
        """Leave the step's clipped gradients in the parameters; return its loss and the norm before clipping.

        In float16 a step that overflows is computed again at half the loss scale, so no example is skipped. Whatever
        is decided here is decided by sums over all processes, so all of them go on, repeat or stop together.
        """
        import torch

        settings = self.settings
        mine = self.processes.share(range(settings.forward_passes))
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            total = self._added_up(torch.stack([self._backward(step, part) for part in mine]).sum())
            self.scaler.unscale_(self.optimizer)
            grad_norm = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), settings.max_grad_norm)
            # A GPU is still computing here; reading the loss waits for it.
            self._ready = {(first := self._first(step + 1, mine[0])): self._batch(first)}
            loss, norm = torch.stack([total, grad_norm]).tolist()
            if math.isfinite(loss) and math.isfinite(norm):
                return loss, norm
            if not math.isfinite(loss) or self.scaler.get_scale() <= 1:
                raise PipelineError(self._not_finite_message(step, loss, norm))
            self.scaler.update()

    def _added_up(self, loss: torch.Tensor) -> torch.Tensor:
        """Sum the gradients, in place, and the loss over the processes, in one message."""
        import torch

        if self.processes.count == 1:
            return loss
        gradients = [parameter.grad for parameter in self.parameters.values()]
        flat = torch.cat([loss.reshape(1), *(gradient.flatten() for gradient in gradients)])
        self.processes.add_up(flat)
        sums = flat[1:].split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [s.view(g.shape) for s, g in zip(sums, gradients, strict=True)])
        return flat[0]

    def _backward(self, step: int, part: int) -> torch.Tensor:
        first = self._first(step, part)
        batch = self._ready.pop(first, None) or self._batch(first)
        with self._dropout(first):
            with self.policy.autocast():
                predicted = self._predict(batch.noisy, batch.timesteps, encoder_hidden_states=batch.text).sample
            squared_error = (predicted.float() - batch.target).square().mean(dim=(1, 2, 3))
            loss = (batch.weights * squared_error).sum() / self.settings.effective_batch_size
            self.scaler.scale(loss).backward()
        return loss.detach()

    def _first(self, step: int, part: int) -> int:
        """Return the first visit of a forward pass."""
        return (step - 1) * self.settings.effective_batch_size + part * self.settings.batch_size

    def _batch(self, first: int) -> Batch:
        made = make_batch(self.examples, first, schedule=self.schedule, settings=self.settings)
        return made.to(self.policy.device)

    def _dropout(self, first: int) -> AbstractContextManager[None]:
        """Return the context of the forward pass over the visits from `first` on: its place in the run seeds it."""
        if self.settings.lora_dropout == 0:
            return nullcontext()
        return seeded_layers(self.policy.device, self.settings.seed, "lora dropout", first)

    def _not_finite_message(self, step: int, loss: float, norm: float) -> str:
        count = self.settings.effective_batch_size
        n_examples = len(self.examples.image_ids)
        seen = visits((step - 1) * count, count, n_examples=n_examples, seed=self.settings.seed)
        names = ", ".join(dict.fromkeys(self.examples.image_ids[visit.index] for visit in seen))
        return (
            f"Training stopped at step {step}: loss {loss:g}, gradient norm {norm:g}. Its images: {names}. The last "
            f"good checkpoint is kept. Lower train.learning_rate, or look at these images and captions."
        )


def learning_rate_at(step: int, settings: TrainSettings) -> float:
    """Return the learning rate of optimizer step `step`, counted from 1.

    It rises linearly to the peak at the last warm-up step; then it stays, or falls linearly or by half a cosine so that
    the step after max_steps would have 0.
    """
    warmup = settings.lr_warmup_steps
    if step <= warmup:
        return settings.learning_rate * step / warmup
    if settings.lr_scheduler == "constant":
        return settings.learning_rate
    progress = (step - 1 - warmup) / max(1, settings.max_steps - warmup)
    factor = 1 - progress if settings.lr_scheduler == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return settings.learning_rate * factor


def smoothed_loss(previous: float, loss: float, *, step: int) -> float:
    """Return the exponential moving average after `step`, corrected for its start (Kingma and Ba 2015, section 3)."""
    kept, total = 1 - LOSS_SMOOTHING ** (step - 1), 1 - LOSS_SMOOTHING**step
    return (LOSS_SMOOTHING * kept * previous + (1 - LOSS_SMOOTHING) * loss) / total
