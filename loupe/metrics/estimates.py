"""A number with its bootstrap draws and its interval: of values per image, and of their differences. It knows no image.

The draws of everything are widened for few prompts (`bootstrap.widened`), once and here: intervals, p-values and what
`select` makes of the draws agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from loupe.metric_specs import MetricSpec
from loupe.metrics.bootstrap import (
    LEAST_PROMPTS,
    Interval,
    covering,
    interactions,
    mean_resamples,
    percentile_interval,
    resample_prompts,
    strata_of,
    weights_per_image,
    widened,
    within,
)
from loupe.metrics.image_set import Array, TooFewImagesError
from loupe.metrics.share_intervals import paired_share_interval, share_difference_interval, wilson_interval

ROUNDING = 1e-12
"""Draws of one value are alike up to this."""
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
    """What each prompt weighs in each resample; the same for every checkpoint."""

    prompts: tuple[str, ...]
    strata: tuple[str, ...]
    """Of each prompt, see `strata_of`."""
    weights_RP: Array
    """[R, P]; no rows when there are fewer than two prompts."""

    def weights_of(self, cells: Cells) -> Array:
        """Return [R, N]: what the image of each cell weighs."""
        return weights_per_image(self.weights_RP, self.prompts, [prompt for prompt, _ in cells])

    def strata_of(self, cells: Cells) -> list[str]:
        """Return the stratum of each of the prompts that the images have, in order of their first ones."""
        stratum = dict(zip(self.prompts, self.strata, strict=True))
        return [stratum[prompt] for prompt in dict.fromkeys(prompt for prompt, _ in cells)]

    def widened_for(self, draws_R: Array, cells: Cells) -> Array:
        """Return the draws widened for the prompts that the images have; of one prompt as they are."""
        strata = self.strata_of(cells)
        return widened(draws_R, strata) if len(strata) >= LEAST_PROMPTS else draws_R


def resampling_of(
    prompts: tuple[str, ...], n_draws: int, rng: np.random.Generator, *, colours: Sequence[str | None] | None = None
) -> Resampling:
    """Return the resamples of a run, within the colours of its prompts; without these all prompts are of one kind.

    There are none below two prompts, where no interval means anything.
    """
    strata = strata_of(colours or [None] * len(prompts))
    n_draws = n_draws if len(prompts) >= LEAST_PROMPTS else 0
    return Resampling(prompts=prompts, strata=strata, weights_RP=resample_prompts(strata, n_draws, rng))


def mean_estimate(values_N: Array, cells: Cells, spec: MetricSpec, resampling: Resampling) -> Estimate:
    """Return the mean over the images that have a value; TooFewImagesError, saying what it needs, when none has.

    The interval of a share lies in [0, 1]; where every value is 0 or 1 it holds Wilson's too: resamples of nothing but
    1 never show a 0.
    """
    value, draws, interval = _mean(values_N, cells, spec.needs, resampling)
    if interval is not None and spec.unit == "share":
        answers = values_N[_answering_rows(values_N, cells, spec)]
        if _are_answers(answers):
            interval = covering(interval, wilson_interval(value, len(answers)))
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
        both = _answering_rows(differences, a.cells, spec)
        if _are_answers(a.values[both], values_b[both]) and not same_pictures:
            interval = covering(interval, paired_share_interval(a.values[both], values_b[both]))
        interval = within(interval, -1.0, 1.0)
    return Estimate(value, draws, interval)


def bounded(estimate: Estimate, spec: MetricSpec, n_photos: int) -> Estimate:
    """Return the estimate of a set with the part of its interval that scores can have.

    That of a share of so many real photos holds Wilson's: where all photos have something they have it without any one
    prompt too, and may not with others.
    """
    if estimate.interval is None:
        return estimate
    interval, most = estimate.interval, math.inf
    if spec.unit == "share":
        interval, most = covering(interval, wilson_interval(estimate.value, n_photos)), 1.0
    least = -math.inf if spec.least is None else min(spec.least, estimate.value)
    return replace(estimate, interval=within(interval, least, most))


def difference_of_sets(a: Estimate, b: Estimate, cells: Cells) -> Estimate:
    """Return a - b of sets of the same cells; draws are paired."""
    draws = a.draws - b.draws
    return Estimate(a.value - b.value, draws, interval_of(draws, cells))


def share_of_photos_difference(difference: Estimate, a: Estimate, b: Estimate, n_photos: int) -> Estimate:
    """Return the difference of shares of so many real photos, with an interval in [-1, 1].

    Where no prompt makes a difference it is that of independent shares: other prompts might.
    """
    interval = difference.interval
    if interval is None:
        return difference
    if interval.hi - interval.lo < ROUNDING:
        interval = covering(interval, share_difference_interval(a.value, b.value, n_photos))
    return replace(difference, interval=within(interval, -1.0, 1.0))


def interval_of(draws_R: Array, cells: Cells) -> Interval | None:
    """Return the interval of draws of these images; None where they have one prompt, whose resamples are all alike."""
    return percentile_interval(draws_R) if n_prompts(cells) >= LEAST_PROMPTS else None


def set_estimate(
    value: float, without_P: Array, cells: Cells, resampling: Resampling, *, pairs_PP: Array | None = None
) -> Estimate:
    """Return the estimate of a score of a whole set; `without_P` is its value without each prompt, in order of cells.

    Resamples hold copies, of which such a score has a bias that its value has not: the bootstrap of a Fréchet distance
    leaves out value and truth. So each draw takes a prompt for what the score loses without it: a mean has just the
    draws of its bootstrap, and the variance is the jackknife's, which on average is not too small (Efron & Stein 1981,
    The Jackknife Estimate of Variance, Annals of Statistics 9, 586-596). The interval is of the score at this number of
    pictures, the bias of which it keeps. `pairs_PP` is what each pair of prompts adds to a mean over pairs; what is not
    the sum of their own parts comes with the product of their weights, and makes draws as skew as such scores are.
    """
    n, firsts = len(without_P), [cells[row] for row in first_rows(cells)]
    more_RP = resampling.weights_of(firsts) - 1
    # About their own mean: where prompts are missing, resamples have not as many of the others as there are.
    draws = value - (n - 1) / n * (more_RP @ (without_P - without_P.mean()))
    if pairs_PP is not None:
        draws += ((more_RP @ interactions(pairs_PP, resampling.strata_of(firsts))) * more_RP).sum(axis=1)
    draws = resampling.widened_for(draws, cells)
    return Estimate(value, draws, interval_of(draws, cells), cells=tuple(cells))


def first_rows(cells: Cells) -> list[int]:
    """Return the row of the first image of each prompt, in order."""
    rows: dict[str, int] = {}
    for row, (prompt, _) in enumerate(cells):
        rows.setdefault(prompt, row)
    return list(rows.values())


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


def _answering_rows(values_N: Array, cells: Cells, spec: MetricSpec) -> list[int]:
    """Return the rows that answer for themselves: those with a value, one of each prompt where they share it."""
    rows = np.flatnonzero(np.isfinite(values_N)).tolist()
    return [rows[place] for place in first_rows([cells[row] for row in rows])] if spec.by_prompt else rows


def _are_answers(*values: Array) -> bool:
    """Whether all values are 0 or 1: yes or no."""
    return all(np.isin(part, (0.0, 1.0)).all() for part in values)


def _mean(values_N: Array, cells: Cells, needs: str, resampling: Resampling) -> tuple[float, Array, Interval | None]:
    """Return mean, draws and interval, for as many prompts as have a value."""
    value = mean_of_finite(values_N, needs)
    valued = [cell for cell, has_value in zip(cells, np.isfinite(values_N), strict=True) if has_value]
    draws = resampling.widened_for(mean_resamples(values_N, resampling.weights_of(cells)), valued)
    return value, draws, interval_of(draws, valued)
