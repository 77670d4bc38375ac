"""Training the adapter: a generator of frozen rows, one per optimizer step.

The caller owns the progress bar, the CSV and the cadence of checkpoints. Here nothing is read or written, no VAE is in
memory, and nothing depends on how often a run was interrupted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loupe.diffusion.adapter import AdapterState
from loupe.diffusion.batches import NoiseSchedule, make_batch
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.ema import MovingAverage
from loupe.diffusion.forward_pass import forward_pass
from loupe.diffusion.latent_files import Examples
from loupe.diffusion.noise import visits
from loupe.diffusion.optimizers import (
    OptimizerState,
    make_optimizer,
    optimizer_state,
    restore_optimizer,
    set_learning_rate,
)
from loupe.diffusion.processes import ALONE, Processes
from loupe.diffusion.text_adapter import AdaptedModels
from loupe.diffusion.train_settings import TrainSettings, learning_rate_at, smoothed_loss
from loupe.errors import PipelineError
from loupe.records import TrainRow

if TYPE_CHECKING:
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel


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


@dataclass(frozen=True, slots=True)
class _Launched:
    """A step that was given to the device; its numbers [loss, gradient norm] may still be on their way."""

    step: int
    learning_rate: float
    numbers: torch.Tensor
    arrived: torch.cuda.Event | None


class Trainer:
    """A UNet with its adapter and optimizer, at some step of a run; perhaps the text encoder with its own as well.

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
        text_encoder: CLIPTextModel | None = None,
    ) -> None:
        import torch

        self.unet = unet.train()
        self.models = AdaptedModels(unet, text_encoder)
        self.examples = examples
        self.schedule = schedule
        self.settings = settings
        self.policy = policy
        self.processes = processes
        self.parameters = self.models.parameters()
        self.optimizer = make_optimizer(
            settings.optimizer,
            self.parameters,
            learning_rate=settings.learning_rate,
            betas=settings.adam_betas,
            epsilon=settings.adam_epsilon,
            weight_decay=settings.weight_decay,
            text_learning_rate=settings.text_learning_rate,
        )
        decay = settings.ema_decay
        self.average = None if decay is None else MovingAverage(self.parameters, decay=decay)
        self.scaler = torch.amp.GradScaler(policy.device, enabled=policy.dtype_name == "float16")
        self._pass = forward_pass(
            unet, self.parameters.values(), settings=settings, policy=policy, text_encoder=text_encoder
        )
        self.runs_ahead = policy.device == "cuda" and settings.optimizer == "adamw" and not self.scaler.is_enabled()
        """Whether a step is begun before the numbers of the last one are read, so that the GPU never waits."""
        self.rows: list[TrainRow] = []
        self._launched: deque[_Launched] = deque()

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return len(self.rows) + len(self._launched)

    def run(self, until: int) -> Iterator[TrainRow]:
        """Train up to and including step `until`, yielding a row after each step.

        Raises PipelineError when a loss or gradient is not finite; that step has changed no weight. On a GPU a row
        comes when the next step has begun, but none is begun beyond `until`.
        """
        n_yielded = len(self.rows)
        while n_yielded < until:
            if self.step < until:
                self._launched.append(self._launch(self.step + 1))
            self._read_launched(all_but=int(self.runs_ahead and self.step < until))
            while n_yielded < len(self.rows):
                yield self.rows[n_yielded]
                n_yielded += 1

    @contextmanager
    def checkpoint_weights(self) -> Iterator[None]:
        """Have the weights that a checkpoint would hold in the models for the length of the block."""
        if self.average is None:
            yield
            return
        trained = {key: parameter.detach().clone() for key, parameter in self.parameters.items()}
        self.models.set_state(self.average.weights)
        try:
            yield
        finally:
            self.models.set_state(trained)

    def state(self) -> TrainingState:
        """Return a copy of everything the next step needs, on the CPU; it waits for the steps that were begun."""
        self._read_launched()
        averages = {} if self.average is None else self.average.weights
        return TrainingState(
            adapter=self.models.state(),
            average={key: weight.cpu().clone() for key, weight in averages.items()},
            optimizer=optimizer_state(self.optimizer, self.parameters),
            scaler=self.scaler.state_dict(),
            rows=tuple(self.rows),
        )

    def restore(self, state: TrainingState) -> None:
        """Go on from `state` as if this trainer had made its steps itself."""
        self.models.set_state(state.adapter)
        if self.average is not None:
            self.average.load(state.average)
        restore_optimizer(self.optimizer, self.parameters, state.optimizer)
        self.scaler.load_state_dict(dict(state.scaler))
        self._launched.clear()
        self.rows = list(state.rows)

    def _launch(self, step: int) -> _Launched:
        """Make an optimizer step, unless a number of it is not finite.

        In float16 a step that overflows is computed again at half the loss scale, so no example is skipped. Whatever
        is decided here is decided by sums over all processes, so all of them go on, repeat or stop together.
        """
        learning_rate = learning_rate_at(step, self.settings)
        set_learning_rate(self.optimizer, learning_rate)
        numbers = self._gradients(step)
        if self.runs_ahead:
            # As torch.amp.GradScaler does: the fused optimizer itself then leaves everything as it is.
            self.optimizer.found_inf = (~numbers.isfinite()).any().float()
        else:
            while not bool(numbers.isfinite().all()):
                self._repeat_or_raise(step, *numbers.tolist())
                numbers = self._gradients(step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.parameters, step=step)
        return _Launched(step, learning_rate, *self._on_its_way(numbers))

    def _gradients(self, step: int) -> torch.Tensor:
        """Leave the step's clipped gradients in the parameters; return [loss, norm before clipping] on the device."""
        import torch

        settings = self.settings
        self.optimizer.zero_grad(set_to_none=not self._pass.keeps_gradients)
        losses = [self._backward(step, part) for part in self.processes.share(range(settings.forward_passes))]
        total = self._added_up(torch.stack(losses).sum())
        self.scaler.unscale_(self.optimizer)
        grad_norm = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), settings.max_grad_norm)
        return torch.stack([total, grad_norm])

    def _backward(self, step: int, part: int) -> torch.Tensor:
        first = self._first(step, part)
        batch = make_batch(self.examples, first, schedule=self.schedule, settings=self.settings)
        return self._pass(batch, first=first, scaler=self.scaler)

    def _first(self, step: int, part: int) -> int:
        """Return the first visit of a forward pass."""
        return (step - 1) * self.settings.effective_batch_size + part * self.settings.batch_size

    def _repeat_or_raise(self, step: int, loss: float, norm: float) -> None:
        if not math.isfinite(loss) or self.scaler.get_scale() <= 1:
            raise PipelineError(self._not_finite_message(step, loss, norm))
        self.scaler.update()

    def _on_its_way(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
        """Begin the way of the numbers to the host behind the step that makes them, not behind the one after it."""
        import torch

        if self.policy.device != "cuda":
            return numbers, None
        landing = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        landing.copy_(numbers, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return landing, arrived

    def _read_launched(self, *, all_but: int = 0) -> None:
        """Append the rows of all steps begun except the last `all_but`, waiting for them."""
        while len(self._launched) > all_but:
            launched = self._launched[0]
            if launched.arrived is not None:
                launched.arrived.synchronize()
            loss, norm = launched.numbers.tolist()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise PipelineError(self._not_finite_message(launched.step, loss, norm))
            previous = self.rows[-1].loss_smoothed if self.rows else 0.0
            row = TrainRow(
                step=launched.step,
                loss=loss,
                loss_smoothed=smoothed_loss(previous, loss, step=launched.step),
                learning_rate=launched.learning_rate,
                grad_norm=norm,
            )
            self._launched.popleft()
            self.rows.append(row)

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

    def _not_finite_message(self, step: int, loss: float, norm: float) -> str:
        count = self.settings.effective_batch_size
        n_examples = len(self.examples.image_ids)
        seen = visits((step - 1) * count, count, n_examples=n_examples, seed=self.settings.seed)
        names = ", ".join(dict.fromkeys(self.examples.image_ids[visit.index] for visit in seen))
        return (
            f"Training stopped at step {step}: loss {loss:g}, gradient norm {norm:g}. Its images: {names}. The last "
            f"good checkpoint is kept. Lower train.learning_rate, or look at these images and captions."
        )
