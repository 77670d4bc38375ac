"""Training the adapter: a generator of frozen rows, one per optimizer step.

The caller owns the progress bar, the CSV and the cadence of checkpoints. Here nothing is read or written, no VAE and no
text encoder is in memory, and nothing depends on how often a run was interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from loupe.diffusion.adapter import adapter_parameters, adapter_state, set_adapter_state
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.latent_files import EMPTY_ROW, Examples
from loupe.diffusion.noise import add_noise, draw, min_snr_weights, velocity, visits
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
    learning_rate: float
    lr_scheduler: Literal["constant", "linear", "cosine"]
    lr_warmup_steps: int
    adam_betas: tuple[float, float]
    adam_epsilon: float
    weight_decay: float
    max_grad_norm: float
    noise_offset: float
    snr_gamma: float | None
    caption_dropout: float

    @property
    def effective_batch_size(self) -> int:
        """Examples per optimizer step."""
        return self.batch_size * self.gradient_accumulation_steps


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """What training needs of the base model's noise scheduler and VAE."""

    alphas_cumprod: torch.Tensor
    prediction_type: str
    scaling_factor: float


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Everything that one step hands to the next: the adapter, AdamW's moments, the loss scaler, the rows so far.

    There is no generator state: draws belong to the visit (noise.py), and the learning rate to the step.
    """

    adapter: dict[str, torch.Tensor]
    exp_avg: dict[str, torch.Tensor]
    exp_avg_sq: dict[str, torch.Tensor]
    scaler: dict[str, float]
    """Of torch.amp.GradScaler; empty unless the policy computes in float16."""
    rows: tuple[TrainRow, ...]
    """One per step done."""

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass: noised latents and target [B, C, h, w], timesteps [B], text vectors [B, T, D], weights [B]."""

    noisy: torch.Tensor
    timesteps: torch.Tensor
    text: torch.Tensor
    target: torch.Tensor
    weights: torch.Tensor

    def to(self, device: str) -> Batch:
        """Return the batch on `device`."""
        return Batch(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))


class Trainer:
    """A UNet with its adapter and optimizer, at some step of a run."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        examples: Examples,
        *,
        schedule: NoiseSchedule,
        settings: TrainSettings,
        policy: DevicePolicy,
    ) -> None:
        import torch

        self.unet = unet.train()
        self.examples = examples
        self.schedule = schedule
        self.settings = settings
        self.policy = policy
        self.parameters = adapter_parameters(unet)
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=settings.learning_rate,
            betas=settings.adam_betas,
            eps=settings.adam_epsilon,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.scaler = torch.amp.GradScaler(policy.device, enabled=policy.dtype_name == "float16")
        self.rows: list[TrainRow] = []

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

    def state(self) -> TrainingState:
        """Return a copy of everything the next step needs, on the CPU."""
        moments = {key: self.optimizer.state[parameter] for key, parameter in self.parameters.items()}
        return TrainingState(
            adapter=adapter_state(self.unet),
            exp_avg={key: moment["exp_avg"].cpu().clone() for key, moment in moments.items()},
            exp_avg_sq={key: moment["exp_avg_sq"].cpu().clone() for key, moment in moments.items()},
            scaler=self.scaler.state_dict(),
            rows=tuple(self.rows),
        )

    def restore(self, state: TrainingState) -> None:
        """Go on from `state` as if this trainer had made its steps itself."""
        import torch

        set_adapter_state(self.unet, state.adapter)
        for key, parameter in self.parameters.items():
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(state.step), device=parameter.device),
                "exp_avg": state.exp_avg[key].to(parameter.device, copy=True),
                "exp_avg_sq": state.exp_avg_sq[key].to(parameter.device, copy=True),
            }
        self.scaler.load_state_dict(dict(state.scaler))
        self.rows = list(state.rows)

    def _gradients(self, step: int) -> tuple[float, float]:
        """Leave the step's clipped gradients in the parameters; return its loss and the norm before clipping.

        In float16 a step that overflows is computed again at half the loss scale, so no example is skipped.
        """
        import torch

        settings = self.settings
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            parts = [self._backward(step, part) for part in range(settings.gradient_accumulation_steps)]
            self.scaler.unscale_(self.optimizer)
            grad_norm = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), settings.max_grad_norm)
            loss, norm = torch.stack([torch.stack(parts).sum(), grad_norm]).tolist()
            if math.isfinite(loss) and math.isfinite(norm):
                return loss, norm
            if not math.isfinite(loss) or self.scaler.get_scale() <= 1:
                raise PipelineError(self._not_finite_message(step, loss, norm))
            self.scaler.update()

    def _backward(self, step: int, part: int) -> torch.Tensor:
        settings = self.settings
        first = (step - 1) * settings.effective_batch_size + part * settings.batch_size
        batch = make_batch(self.examples, first, schedule=self.schedule, settings=settings).to(self.policy.device)
        with self.policy.autocast():
            predicted = self.unet(batch.noisy, batch.timesteps, encoder_hidden_states=batch.text).sample
        squared_error = (predicted.float() - batch.target).square().mean(dim=(1, 2, 3))
        loss = (batch.weights * squared_error).sum() / settings.effective_batch_size
        self.scaler.scale(loss).backward()
        return loss.detach()

    def _not_finite_message(self, step: int, loss: float, norm: float) -> str:
        count = self.settings.effective_batch_size
        n_examples = len(self.examples.image_ids)
        seen = visits((step - 1) * count, count, n_examples=n_examples, seed=self.settings.seed)
        names = ", ".join(dict.fromkeys(self.examples.image_ids[visit.index] for visit in seen))
        return (
            f"Training stopped at step {step}: loss {loss:g}, gradient norm {norm:g}. Its images: {names}. The last "
            f"good checkpoint is kept. Lower train.learning_rate, or look at these images and captions."
        )


def make_batch(examples: Examples, first: int, *, schedule: NoiseSchedule, settings: TrainSettings) -> Batch:
    """Return the forward pass over the visits from `first` on, on the CPU; it depends on nothing but its arguments."""
    import torch

    seen = visits(first, settings.batch_size, n_examples=len(examples.image_ids), seed=settings.seed)
    draws = [
        draw(
            seed=settings.seed,
            epoch=visit.epoch,
            image_id=examples.image_ids[visit.index],
            shape=tuple(examples.mean.shape[1:]),
            n_timesteps=len(schedule.alphas_cumprod),
            dropout=settings.caption_dropout,
            offset=settings.noise_offset,
        )
        for visit in seen
    ]
    rows = torch.tensor([visit.index for visit in seen])
    posterior_noise = torch.stack([d.posterior_noise for d in draws])
    clean = (examples.mean[rows] + examples.std[rows] * posterior_noise) * schedule.scaling_factor
    noise = torch.stack([d.noise for d in draws])
    timesteps = torch.tensor([d.timestep for d in draws])
    alphas_cumprod = schedule.alphas_cumprod[timesteps]
    captions = examples.caption_index[rows].masked_fill(torch.tensor([d.drops_caption for d in draws]), EMPTY_ROW)
    is_velocity = schedule.prediction_type == "v_prediction"
    weights = torch.ones(len(seen))
    if settings.snr_gamma is not None:
        weights = min_snr_weights(alphas_cumprod, gamma=settings.snr_gamma, prediction_type=schedule.prediction_type)
    return Batch(
        noisy=add_noise(clean, noise, alphas_cumprod),
        timesteps=timesteps,
        text=examples.embeddings[captions],
        target=velocity(clean, noise, alphas_cumprod) if is_velocity else noise,
        weights=weights,
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
