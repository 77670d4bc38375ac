"""The numbers that decide a training's weights, and what follows from them alone: learning rate and smoothed loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from loupe.diffusion.optimizers import OptimizerName

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
    random_flip: bool = False
    train_text_encoder: bool = False
    text_encoder_learning_rate: float | None = None
    processes: int = 1
    """That compute a step together; each makes `gradient_accumulation_steps` of its forward passes."""

    @classmethod
    def of(cls, section: Mapping[str, Any], *, seed: int, processes: int = 1) -> TrainSettings:
        """Return the numbers of params.yaml's section `train`, given with its names; what decides no weight is left."""
        names = {field.name for field in fields(cls)}
        numbers = {name: value for name, value in section.items() if name in names}
        betas = (section["adam_beta1"], section["adam_beta2"])
        return cls(seed=seed, adam_betas=betas, processes=processes, **numbers)

    @property
    def forward_passes(self) -> int:
        """Forward passes per optimizer step, over all processes."""
        return self.gradient_accumulation_steps * self.processes

    @property
    def text_learning_rate(self) -> float:
        """Peak learning rate of the text encoder's adapter."""
        own = self.text_encoder_learning_rate
        return self.learning_rate if own is None else own

    @property
    def effective_batch_size(self) -> int:
        """Examples per optimizer step, over all processes."""
        return self.batch_size * self.forward_passes


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
