"""One forward pass of training, made of encoded examples: noised latents, targets and text vectors, paired by image.

A batch depends on nothing but its arguments. No model runs here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.diffusion.latent_files import EMPTY_ROW, Examples, read_examples
from loupe.diffusion.noise import add_noise, draw, min_snr_weights, velocity, visits
from loupe.errors import PipelineError
from loupe.records import BaseModelInfo

if TYPE_CHECKING:
    import torch

    from loupe.diffusion.train_settings import TrainSettings

_NAMED_IMAGES = 20


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """What training needs of the base model's noise scheduler and VAE."""

    alphas_cumprod: torch.Tensor
    prediction_type: str
    scaling_factor: float


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass: noised latents and target [B, C, h, w], timesteps [B], text vectors [B, T, D], weights [B].

    When the text encoder is trained, the text is its tokens [B, T] int64 instead.
    """

    noisy: torch.Tensor
    timesteps: torch.Tensor
    text: torch.Tensor
    target: torch.Tensor
    weights: torch.Tensor

    def to(self, device: str) -> Batch:
        """Return the batch on `device`; to a GPU it is copied while that goes on computing."""
        tensors = [getattr(self, field.name) for field in fields(self)]
        if device == "cuda":
            tensors = [tensor.pin_memory() for tensor in tensors]
        # Elsewhere the copy may read a host tensor after it was given up (pytorch issue 189690, Apple's GPUs).
        return Batch(*(tensor.to(device, non_blocking=device == "cuda") for tensor in tensors))


def training_examples(latents: Path, *, base: BaseModelInfo, settings: TrainSettings) -> Examples:
    """Read the encoded training photos with all that these settings need of them; errors as read_examples."""
    text, flips = settings.train_text_encoder, settings.random_flip
    return read_examples(latents, "train", base=base, with_tokens=text, with_mirrored=flips)


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
            flips=settings.random_flip,
        )
        for visit in seen
    ]
    rows = torch.tensor([visit.index for visit in seen])
    posterior_noise = torch.stack([d.posterior_noise for d in draws])
    mean, std = _posteriors(examples, rows, torch.tensor([d.mirrors for d in draws]))
    clean = (mean + std * posterior_noise) * schedule.scaling_factor
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
        text=(_tokens(examples) if settings.train_text_encoder else examples.embeddings)[captions],
        target=velocity(clean, noise, alphas_cumprod) if is_velocity else noise,
        weights=weights,
    )


def _posteriors(examples: Examples, rows: torch.Tensor, mirrors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and std [B, C, h, w] of the photos of `rows`, of those mirrored where `mirrors` [B] says so."""
    mean, std = examples.mean[rows], examples.std[rows]
    if not mirrors.any():
        return mean, std
    if examples.mirrored is None:
        raise ValueError("to train with random flips, read the examples with their mirrored photos")
    mean[mirrors], std[mirrors] = examples.mirrored.mean[rows[mirrors]], examples.mirrored.std[rows[mirrors]]
    return mean, std


def _tokens(examples: Examples) -> torch.Tensor:
    if examples.token_ids is None:
        raise ValueError("to train the text encoder, read the examples with their tokens")
    return examples.token_ids


def require_finite(examples: Examples) -> None:
    """Raise PipelineError naming the images whose latent or caption's vectors hold NaN or infinity."""
    import torch

    flipped = [] if examples.mirrored is None else [examples.mirrored.mean, examples.mirrored.std]
    every = [tensor.isfinite().flatten(1).all(1) for tensor in (examples.mean, examples.std, *flipped)]
    latents = torch.stack(every).all(dim=0)
    texts = examples.embeddings.isfinite().flatten(1).all(1)
    bad = {
        "the latents": [i for i, fine in zip(examples.image_ids, latents.tolist(), strict=True) if not fine],
        "the captions' vectors": [
            i for i, fine in zip(examples.image_ids, texts[examples.caption_index].tolist(), strict=True) if not fine
        ],
    }
    problems = [f"{what} of {_some(image_ids)}" for what, image_ids in bad.items() if image_ids]
    if not texts[EMPTY_ROW]:
        problems.append("the vectors of the empty caption")
    if problems:
        raise PipelineError(
            f"Training on values that are not finite would destroy the adapter. Not finite: {'; '.join(problems)}. "
            f"Encode them again: dvc repro --force encode; if they stay so, leave these images out."
        )


def _some(image_ids: list[str]) -> str:
    rest = len(image_ids) - _NAMED_IMAGES
    return ", ".join(image_ids[:_NAMED_IMAGES]) + (f" and {rest} more" if rest > 0 else "")
