"""Resampling by prompt, intervals and corrected p-values. It knows no metric.

The prompt is the unit: pictures of one prompt are alike, and intervals from resampled pictures come out too narrow
(Miller 2024, arXiv:2411.00640, clustered and paired). Below some 30 prompts percentile intervals are too narrow still,
so draws are widened to the width of Student's interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from loupe.metrics.image_set import Array

LEAST_PROMPTS = 2
COVERAGE_PERCENT = 95


@dataclass(frozen=True, slots=True)
class Interval:
    """The 2.5th and 97.5th percentile of bootstrap values."""

    lo: float
    hi: float

    def contains(self, value: float) -> bool:
        """Whether `value` lies inside, ends included."""
        return self.lo <= value <= self.hi


def resample_prompts(n_prompts: int, n_draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return counts [R, P]: how often each prompt occurs in each resample of P prompts with replacement."""
    return rng.multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), size=n_draws)


def counts_per_image(counts_RP: NDArray, prompts: Sequence[str], image_prompts: Sequence[str]) -> NDArray[np.int64]:
    """Return counts [R, N]: every image is taken as often as its prompt. `prompts` names the columns of counts_RP."""
    column = {prompt: index for index, prompt in enumerate(prompts)}
    return counts_RP[:, [column[prompt] for prompt in image_prompts]]


def mean_resamples(values_N: Array, counts_RN: NDArray) -> Array:
    """Return [R] means under each resample, over the images that have a value; NaN where a resample has none."""
    present = ~np.isnan(values_N)
    totals = counts_RN[:, present].sum(axis=1).astype(np.float64)
    sums = counts_RN[:, present] @ values_N[present]
    return np.divide(sums, totals, out=np.full(len(totals), np.nan), where=totals > 0)


def expansion(n_prompts: int) -> float:
    """Return how much wider draws of n prompts must be for their 95 % percentile interval to be Student's; > 1.

    sqrt(n / (n - 1)) t / z: resamples vary by (n - 1) / n of what the mean of n does, and the deviation is estimated
    (Hesterberg 2015, What Teachers Should Know About the Bootstrap, arXiv:1411.5279). 1.12 for 16 prompts, 1.03 for 64.
    """
    tail = 0.5 + COVERAGE_PERCENT / 200
    few = math.sqrt(n_prompts / (n_prompts - 1))
    return few * float(student.ppf(tail, n_prompts - 1)) / NormalDist().inv_cdf(tail)


def widened(draws_R: Array, n_prompts: int) -> Array:
    """Return the draws of n >= 2 prompts, moved away from their mean by `expansion`: of the draws, not of one interval.

    It is linear, so differences of widened draws are widened differences, and a p-value is below 5 % just where the
    interval leaves 0 out. Far below 5 % p-values stay somewhat small: Student's tails are heavier still.
    """
    finite = np.isfinite(draws_R)
    if not finite.any():
        return draws_R
    centre = draws_R[finite].mean()
    return centre + expansion(n_prompts) * (draws_R - centre)


def percentile_interval(draws_R: Array) -> Interval | None:
    """Return the 95 % percentile interval of the finite draws; None when there are fewer than two."""
    finite = draws_R[np.isfinite(draws_R)]
    if len(finite) < 2:
        return None
    tail = (100 - COVERAGE_PERCENT) / 2
    lo, hi = np.percentile(finite, [tail, 100 - tail])
    return Interval(lo=float(lo), hi=float(hi))


def covering(a: Interval, b: Interval) -> Interval:
    """Return the interval from the lower of both ends to the higher."""
    return Interval(lo=min(a.lo, b.lo), hi=max(a.hi, b.hi))


def within(interval: Interval, least: float, most: float) -> Interval:
    """Return the part of the interval that lies between `least` and `most`."""
    return Interval(lo=max(interval.lo, least), hi=min(interval.hi, most))


def sign_p_value(draws_R: Array) -> float:
    """Return the two-sided p-value of 'the difference is 0' from bootstrap draws of the difference.

    Twice the smaller tail, counting the observed sample itself, so it is never below 2 / (R + 1).
    """
    finite = draws_R[np.isfinite(draws_R)]
    below, above = int((finite <= 0).sum()), int((finite >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(finite) + 1))


def holm_adjusted(p_values: Mapping[int, float]) -> dict[int, float]:
    """Return Holm's step-down adjusted p-values (Holm 1979): they hold for all claims together."""
    adjusted: dict[int, float] = {}
    largest = 0.0
    for rank, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_value))
        adjusted[name] = largest
    return adjusted


def draws_needed(n_claims: int, level: float) -> int:
    """Return how many bootstrap draws bring the smallest p-value below `level` after Holm's correction."""
    return math.floor(round(2 * n_claims / level, 6))
