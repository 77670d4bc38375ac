"""A number with its bootstrap draws and its interval: of values per image, and of their differences. It knows no image.

The draws of everything are widened for few prompts (`bootstrap.widened`), once and here: intervals, p-values and what
`select` makes of the draws agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loupe.metric_specs import MetricSpec
from loupe.metrics.bootstrap import (
    LEAST_PROMPTS,
    Interval,
    counts_per_image,
    covering,
    mean_resamples,
    percentile_interval,
    resample_prompts,
    widened,
    within,
)
from loupe.metrics.image_set import Array, TooFewImagesError
from loupe.metrics.share_intervals import paired_share_interval, wilson_interval

Cells = Sequence[tuple[str, int]]
"""(prompt id, seed index) of each image."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its bootstrap draws (empty when there are too few prompts) and the interval worth showing."""

    value: float
    draws: Array
    interval: Interval | None
    cells: tuple[tuple[str, int], ...] = ()
    values: Array = field(default_factory=lambda: np.zeros(0))
    """[N], level image only: what the image of each cell has, NaN where it has no value."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """How often each prompt occurs in each resample; the same for every checkpoint."""

    prompts: tuple[str, ...]
    counts_RP: NDArray[np.int64]
    """[R, P]; no rows when there are fewer than two prompts."""

    def counts_of(self, cells: Cells) -> NDArray[np.int64]:
        """Return [R, N]: how often the image of each cell is taken."""
        return counts_per_image(self.counts_RP, self.prompts, [prompt for prompt, _ in cells])


def resampling_of(prompts: tuple[str, ...], n_draws: int, rng: np.random.Generator) -> Resampling:
    """Return the resamples of a run; none below two prompts, where no interval means anything."""
    if len(prompts) < LEAST_PROMPTS:
        return Resampling(prompts=prompts, counts_RP=np.zeros((0, len(prompts)), dtype=np.int64))
    return Resampling(prompts=prompts, counts_RP=resample_prompts(len(prompts), n_draws, rng))


def mean_estimate(values_N: Array, cells: Cells, spec: MetricSpec, resampling: Resampling) -> Estimate:
    """Return the mean over the images that have a value; TooFewImagesError, saying what it needs, when none has.

    The interval of a share lies in [0, 1]; where every value is 0 or 1 it holds Wilson's too: resamples of nothing but
    1 never show a 0.
    """
    value, draws, interval = _mean(values_N, cells, spec.needs, resampling)
    if interval is not None and spec.unit == "share":
        finite = values_N[np.isfinite(values_N)]
        if _are_answers(finite):
            interval = covering(interval, wilson_interval(value, len(finite)))
        interval = within(interval, 0.0, 1.0)
    return Estimate(value, draws, interval, cells=tuple(cells), values=values_N)


def mean_difference(
    a: Estimate, b: Estimate, spec: MetricSpec, resampling: Resampling, *, same_pictures: bool = False
) -> Estimate:
    """Return a - b of the same cells, over the images that have a value on both sides; draws are paired.

    The interval of a share lies in [-1, 1]; where every value is 0 or 1 it holds Newcombe's too: of two checkpoints
    that pass everywhere, other prompts may still tell one from the other. `same_pictures` says that both sides are the
    same ones, of which nothing can. Raises TooFewImagesError where no image has both values.
    """
    row_of_b = {cell: row for row, cell in enumerate(b.cells)}
    values_b = b.values[[row_of_b[cell] for cell in a.cells]]
    differences = a.values - values_b
    value, draws, interval = _mean(differences, a.cells, "a picture with a value on both sides", resampling)
    if interval is not None and spec.unit == "share":
        both = np.isfinite(differences)
        if _are_answers(a.values[both], values_b[both]) and not same_pictures:
            interval = covering(interval, paired_share_interval(a.values[both], values_b[both]))
        interval = within(interval, -1.0, 1.0)
    return Estimate(value, draws, interval)


def interval_of(draws_R: Array, cells: Cells) -> Interval | None:
    """Return the interval of draws of these images; None where they have one prompt, whose resamples are all alike."""
    return percentile_interval(draws_R) if n_prompts(cells) >= LEAST_PROMPTS else None


def recentred(draws_R: Array, value: float) -> Array:
    """Return draws of an effective number, exp(I) >= 1, whose I is in the mean that of the value.

    Resamples hold copies, which add nothing, so their I is smaller by a bias that the value has not. What is left is
    how the value varies from run to run at this number of pictures, the bias of which it keeps; 1 stays 1.
    """
    information = np.log(np.maximum(draws_R, 1.0))
    finite = information[np.isfinite(information)]
    if not finite.any():
        return draws_R
    return np.exp(information * (np.log(max(value, 1.0)) / finite.mean()))


def widened_for(draws_R: Array, cells: Cells) -> Array:
    """Return the draws widened for as many prompts as the images have; of one prompt as they are."""
    prompts = n_prompts(cells)
    return widened(draws_R, prompts) if prompts >= LEAST_PROMPTS else draws_R


def n_prompts(cells: Cells) -> int:
    """Return how many different prompts the images have."""
    return len({prompt for prompt, _ in cells})


def mean_of_finite(values_N: Array, needs: str) -> float:
    """Return the mean of the values that are there; TooFewImagesError, with what it needs, where none is."""
    if not len(values_N):
        raise TooFewImagesError("there is no valid image; it needs at least 1")
    if not np.isfinite(values_N).any():
        raise TooFewImagesError(f"no image has a value; it needs {needs}")
    return float(np.nanmean(values_N))


def _are_answers(*values: Array) -> bool:
    """Whether all values are 0 or 1: yes or no."""
    return all(np.isin(part, (0.0, 1.0)).all() for part in values)


def _mean(values_N: Array, cells: Cells, needs: str, resampling: Resampling) -> tuple[float, Array, Interval | None]:
    """Return mean, draws and interval, for as many prompts as have a value."""
    value = mean_of_finite(values_N, needs)
    valued = [cell for cell, has_value in zip(cells, np.isfinite(values_N), strict=True) if has_value]
    draws = widened_for(mean_resamples(values_N, resampling.counts_of(cells)), valued)
    return value, draws, interval_of(draws, valued)
