"""Validation loss: how well a UNet predicts the noise of images it was not trained on, on the same noise every time.

Every val image at every one of a few fixed timesteps, with one fixed noise per image, the posterior's mean and its own
caption; no dropout, no weight. So two checkpoints differ by their weights alone and can be compared image by image. It
reads and writes no file, and judges nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.device_memory import FREE_MEMORY, Portions
from loupe.diffusion.latent_files import Examples
from loupe.diffusion.noise import add_noise, seeded_generator, velocity
from loupe.diffusion.processes import ALONE, Processes
from loupe.diffusion.unet_forward import UNetForward
from loupe.errors import PipelineError
from loupe.progress import track
from loupe.records import BASE_STEP
from loupe.train_records import ValidationRow, ValidationTimestepRow

if TYPE_CHECKING:
    import torch
    from diffusers import UNet2DConditionModel

CONFIDENCE = 0.95
ROWS_AT_ONCE = 16
"""A constant power of two, for the reason given in sampling.pictures_at_once: on the CPU the last bits of a row must
not depend on how many others go through the UNet with it."""
_NAMED_IMAGES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSet:
    """What every checkpoint is measured on: N images x T timesteps; all tensors on the CPU."""

    examples: Examples
    noise: torch.Tensor
    """[N, C, h, w], one unit normal draw per image, the same at all its timesteps."""
    timesteps: torch.Tensor
    """[T] int64, ascending."""
    alphas_cumprod: torch.Tensor
    """[T], of the timesteps."""
    prediction_type: str
    scaling_factor: float

    @property
    def n_rows(self) -> int:
        """Forward passes of one image each."""
        return len(self.noise) * len(self.timesteps)


def fixed_timesteps(count: int, *, n_train_timesteps: int) -> tuple[int, ...]:
    """Return the middles of `count` equal bins of [0, n_train_timesteps), ascending: 8 of 1000 give 62, 187 ... 937.

    Raises PipelineError where there are fewer to choose from.
    """
    if count > n_train_timesteps:
        raise PipelineError(
            f"train.validation_timesteps is {count}, the base model's noise schedule has {n_train_timesteps}: lower it"
        )
    return tuple((2 * index + 1) * n_train_timesteps // (2 * count) for index in range(count))


def make_validation_set(
    examples: Examples,
    *,
    alphas_cumprod: torch.Tensor,
    n_timesteps: int,
    prediction_type: str,
    scaling_factor: float,
    seed: int,
) -> ValidationSet:
    """Return the set; `alphas_cumprod` is the whole noise schedule. The noise belongs to (seed, image id)."""
    import torch

    timesteps = torch.tensor(fixed_timesteps(n_timesteps, n_train_timesteps=len(alphas_cumprod)))
    shape = tuple(examples.mean.shape[1:])
    noise = [
        torch.randn(shape, generator=seeded_generator(seed, "validation", image_id)) for image_id in examples.image_ids
    ]
    return ValidationSet(
        examples=examples,
        noise=torch.stack(noise),
        timesteps=timesteps,
        alphas_cumprod=alphas_cumprod[timesteps],
        prediction_type=prediction_type,
        scaling_factor=scaling_factor,
    )


def validation_losses(
    unet: UNet2DConditionModel, data: ValidationSet, *, policy: DevicePolicy, what: str, processes: Processes = ALONE
) -> torch.Tensor:
    """Return the mean squared error of every image at every timestep: [N, T] float32 on the CPU, perhaps not finite.

    `unet` must be in evaluation mode, with the adapter that is to be measured switched on, or off. `what` names the
    work where its progress is shown. On the CPU a value depends on its own image and timestep alone, bit for bit.
    Several processes share the batches out, which changes no value, and all return the whole. A GPU takes fewer rows at
    once where its memory is full; raises DeviceFull where it does not hold one.
    """
    import torch

    forward = UNetForward(unet, policy=policy)
    portions = Portions(ROWS_AT_ONCE, policy.device, f"Trainer and validation do not fit together. {FREE_MEMORY}")
    mine = processes.share(range(0, data.n_rows, ROWS_AT_ONCE))
    measured: dict[int, torch.Tensor] = {}
    for first in track(mine, total=len(mine), what=what, unit="batch") if processes.is_main else mine:
        rows = torch.arange(first, first + ROWS_AT_ONCE).clamp(max=data.n_rows - 1)
        measured[first] = torch.stack(
            portions.results(ROWS_AT_ONCE, lambda a, b, rows=rows: _row_losses(forward, data, rows[a:b]).unbind())
        )
    losses = torch.zeros(math.ceil(data.n_rows / ROWS_AT_ONCE) * ROWS_AT_ONCE)
    for first, of_batch in measured.items():  # only now: on a GPU the loop above waits for none of them
        losses[first : first + ROWS_AT_ONCE] = of_batch.cpu()
    processes.add_up(losses)
    return losses[: data.n_rows].reshape(len(data.noise), len(data.timesteps))


def _row_losses(forward: UNetForward, data: ValidationSet, rows: torch.Tensor) -> torch.Tensor:
    """Return the losses of the given rows, numbered image by image, on the device."""
    device = forward.policy.device
    image, place = rows // len(data.timesteps), rows % len(data.timesteps)
    clean, noise, alphas = (
        data.examples.mean[image] * data.scaling_factor,
        data.noise[image],
        data.alphas_cumprod[place],
    )
    target = velocity(clean, noise, alphas) if data.prediction_type == "v_prediction" else noise
    text = data.examples.embeddings[data.examples.caption_index[image]]
    predicted = forward(
        add_noise(clean, noise, alphas).to(device),
        data.timesteps[place].to(device),
        text.to(device),
    )
    return (predicted - target.to(device)).square().mean(dim=(1, 2, 3))


def require_finite_losses(losses: torch.Tensor, image_ids: Sequence[str], *, step: int) -> None:
    """Raise PipelineError naming the images with a loss [N, T] that is NaN or infinite."""
    bad = [
        image_id for image_id, fine in zip(image_ids, losses.isfinite().all(dim=1).tolist(), strict=True) if not fine
    ]
    if not bad:
        return
    rest = f" and {len(bad) - _NAMED_IMAGES} more" if len(bad) > _NAMED_IMAGES else ""
    advice = (
        "This is the base model itself, so look at these images and captions, or encode them again: "
        "dvc repro --force encode"
        if step == BASE_STEP
        else "The checkpoints before it are kept. Lower train.learning_rate, or look at these images and captions."
    )
    raise PipelineError(
        f"Validation stopped at step {step}: the loss is not finite for {len(bad)} of {len(image_ids)} val images: "
        f"{', '.join(bad[:_NAMED_IMAGES])}{rest}. {advice}"
    )


def curve_rows(losses_by_step: Mapping[int, torch.Tensor]) -> list[ValidationRow]:
    """Return a row per step, ascending, of losses [N, T] that hold the base model's at step 0.

    The interval is Student's t over the N images' mean differences to the base. It says how far the difference would
    move with other val images of the same kind; it takes the images as independent of each other.
    """
    by_image = {step: losses.double().mean(dim=1).numpy() for step, losses in sorted(losses_by_step.items())}
    rows = []
    for step, means in by_image.items():
        differences = None if step == BASE_STEP else means - by_image[BASE_STEP]
        half = None if differences is None else _half_width(differences)
        diff = None if differences is None else float(differences.mean())
        rows.append(
            ValidationRow(
                step=step,
                val_loss=float(means.mean()),
                val_loss_diff_base=diff,
                val_loss_diff_base_lo=None if diff is None or half is None else diff - half,
                val_loss_diff_base_hi=None if diff is None or half is None else diff + half,
                n_images=len(means),
            )
        )
    return rows


def timestep_rows(losses_by_step: Mapping[int, torch.Tensor], timesteps: Sequence[int]) -> list[ValidationTimestepRow]:
    """Return the mean over the images at each timestep, ascending by step, then timestep."""
    return [
        ValidationTimestepRow(step=step, timestep=timestep, loss=loss)
        for step, losses in sorted(losses_by_step.items())
        for timestep, loss in zip(timesteps, losses.double().mean(dim=0).tolist(), strict=True)
    ]


def _half_width(differences: NDArray[np.float64]) -> float | None:
    from scipy.stats import t

    count = len(differences)
    if count < 2:
        return None
    return float(t.ppf((1 + CONFIDENCE) / 2, count - 1) * differences.std(ddof=1) / math.sqrt(count))
