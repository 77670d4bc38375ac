"""What training draws at random, and the arithmetic of noise: each draw belongs to one visit of one image.

Nothing here depends on batch size, order of computation, process or earlier draws, so resuming needs no generator
state. It computes no loss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Visit:
    """The `position`-th example of a run, counted from 0 over all steps: which image, in which epoch."""

    position: int
    epoch: int
    index: int


@dataclass(frozen=True, slots=True)
class Draw:
    """What one visit draws: timestep, whether its caption is dropped or its photo mirrored, unit normals [C, h, w]."""

    timestep: int
    drops_caption: bool
    mirrors: bool
    posterior_noise: torch.Tensor
    noise: torch.Tensor


def visits(first: int, count: int, *, n_examples: int, seed: int) -> list[Visit]:
    """Return the visits `first` to `first + count`: each epoch is one seeded permutation of all examples.

    Fewer examples than `count` is fine: the next epoch begins within the step.
    """
    result = []
    for position in range(first, first + count):
        epoch, place = divmod(position, n_examples)
        result.append(Visit(position, epoch, epoch_order(n_examples, seed=seed, epoch=epoch)[place]))
    return result


@lru_cache(maxsize=4)
def epoch_order(n_examples: int, *, seed: int, epoch: int) -> tuple[int, ...]:
    """Return the order of the examples in an epoch, a pure function of its arguments."""
    import torch

    return tuple(torch.randperm(n_examples, generator=seeded_generator(seed, "order", epoch)).tolist())


def draw(
    *,
    seed: int,
    epoch: int,
    image_id: str,
    shape: tuple[int, ...],
    n_timesteps: int,
    dropout: float,
    offset: float,
    flips: bool,
) -> Draw:
    """Return the draws of one image in one epoch; `offset` is the noise offset's standard deviation per channel.

    With `flips` half of the visits mirror their photo. Each quantity has its own generator, so switching one on or off
    changes no other.
    """
    import torch

    def generator(what: str) -> torch.Generator:
        return seeded_generator(seed, what, epoch, image_id)

    noise = torch.randn(shape, generator=generator("noise"))
    if offset > 0:
        # Guttenberg 2023, "Diffusion with offset noise": without it the mean of an image can hardly move.
        noise = noise + offset * torch.randn(shape[0], 1, 1, generator=generator("noise offset"))
    return Draw(
        timestep=int(torch.randint(n_timesteps, (), generator=generator("timestep"))),
        drops_caption=dropout > 0 and float(torch.rand((), generator=generator("caption dropout"))) < dropout,
        mirrors=flips and float(torch.rand((), generator=generator("flip"))) < 1 / 2,
        posterior_noise=torch.randn(shape, generator=generator("posterior")),
        noise=noise,
    )


def seeded_generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator whose stream is decided by `parts` alone."""
    import torch

    return torch.Generator().manual_seed(_seed(parts))


@contextmanager
def seeded_layers(device: str, *parts: int | str) -> Iterator[None]:
    """Let layers that know no generator (dropout) draw from streams that `parts` alone decide, on the CPU and `device`.

    The streams of the surrounding program stay as they were.
    """
    import torch

    of_mps = torch.mps.get_rng_state() if device == "mps" else None
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
        torch.manual_seed(_seed(parts))
        yield
    if of_mps is not None:
        torch.mps.set_rng_state(of_mps)


def _seed(parts: tuple[int | str, ...]) -> int:
    digest = hashlib.sha256(repr(parts).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def add_noise(clean: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Return sqrt(a) x + sqrt(1 - a) e for [B, C, h, w] latents and each row's a [B] (Ho et al. 2020, eq. 4)."""
    a = alphas_cumprod[:, None, None, None]
    return a.sqrt() * clean + (1 - a).sqrt() * noise


def velocity(clean: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Return sqrt(a) e - sqrt(1 - a) x, the target of v-prediction (Salimans and Ho 2022, arXiv:2202.00512)."""
    a = alphas_cumprod[:, None, None, None]
    return a.sqrt() * noise - (1 - a).sqrt() * clean


def min_snr_weights(alphas_cumprod: torch.Tensor, *, gamma: float, prediction_type: str) -> torch.Tensor:
    """Return each row's weight of the loss [B]: min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v-prediction.

    SNR = a / (1 - a); where it is 0 (zero terminal SNR) the epsilon weight takes its limit, 1. Hang et al. 2023,
    arXiv:2303.09556.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    if prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    return (gamma / snr).clamp(max=1)
