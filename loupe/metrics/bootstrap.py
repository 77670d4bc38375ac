"""Resampling by prompt, intervals and corrected p-values. It knows no metric.

The prompt is the unit: pictures of one prompt are alike, and intervals from resampled pictures come out too narrow
(Miller 2024, arXiv:2411.00640, clustered and paired). Prompts are resampled within their colour, because that is how
captions are chosen: other prompts would be spread over the same colours, and that colours differ is no chance. Below
some 30 prompts percentile intervals are too narrow still, so draws are widened to the width of Student's interval.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from loupe.metrics.image_set import Array

LEAST_PROMPTS = 2
LEAST_IN_STRATUM = 3
"""Prompts of a colour that are resampled among themselves; of two, how much they vary is hardly known."""
COVERAGE_PERCENT = 95


@dataclass(frozen=True, slots=True)
class Interval:
    """The 2.5th and 97.5th percentile of bootstrap values."""

    lo: float
    hi: float

    def contains(self, value: float) -> bool:
        """Whether `value` lies inside, ends included."""
        return self.lo <= value <= self.hi


def strata_of(colours: Sequence[str | None]) -> tuple[str, ...]:
    """Return the stratum of each prompt: its colour, where at least LEAST_IN_STRATUM have it; no colour is one more.

    All others are a stratum together or, if they are too few for one, go to the most frequent. Both take difference of
    colours for chance, so they err on the wide side.
    """
    named = [f"colour {colour}" if colour else "no colour" for colour in colours]
    counts = Counter(named)
    n_others = sum(count for count in counts.values() if count < LEAST_IN_STRATUM)
    most = max(counts, key=counts.__getitem__, default="")
    others = most if n_others < LEAST_IN_STRATUM <= counts[most] else "other colours"
    return tuple(name if counts[name] >= LEAST_IN_STRATUM else others for name in named)


def resample_prompts(strata: Sequence[str], n_draws: int, rng: np.random.Generator) -> Array:
    """Return weights [R, P] of the prompts in each resample, from the stratum of each; one that is alone keeps 1.

    Of the n prompts of a stratum n - 1 are drawn with replacement, and each weighs n / (n - 1): so a mean varies from
    resample to resample as it does from sample to sample (Rao & Wu 1988, Resampling Inference with Complex Survey Data,
    Journal of the American Statistical Association 83, 231-241), where n of n vary less.
    """
    weights_RP = np.ones((n_draws, len(strata)))
    for stratum in dict.fromkeys(strata):
        columns = [column for column, own in enumerate(strata) if own == stratum]
        n = len(columns)
        if n > 1:
            weights_RP[:, columns] = n / (n - 1) * rng.multinomial(n - 1, np.full(n, 1 / n), size=n_draws)
    return weights_RP


def weights_per_image(weights_RP: Array, prompts: Sequence[str], image_prompts: Sequence[str]) -> Array:
    """Return weights [R, N]: every image has that of its prompt. `prompts` names the columns of weights_RP."""
    column = {prompt: index for index, prompt in enumerate(prompts)}
    return weights_RP[:, [column[prompt] for prompt in image_prompts]]


def mean_resamples(values_N: Array, weights_RN: NDArray) -> Array:
    """Return [R] means under each resample, over the images that have a value; NaN where a resample has none."""
    present = ~np.isnan(values_N)
    totals = weights_RN[:, present].sum(axis=1).astype(np.float64)
    sums = weights_RN[:, present] @ values_N[present]
    return np.divide(sums, totals, out=np.full(len(totals), np.nan), where=totals > 0)


def interactions(pairs_PP: Array, strata: Sequence[str]) -> Array:
    """Return [P, P]: what each pair of prompts is more than the sum of both in their strata; 0 for one with itself.

    The last part of Hoeffding's decomposition of a mean over pairs (1948, A Class of Statistics with Asymptotically
    Normal Distribution, Annals of Mathematical Statistics 19, 293-325), for each two strata: the sum over a row of such
    a block is 0. Two prompts of one stratum are pairs like any other; of fewer than four no such part is left.
    """
    found = np.zeros_like(pairs_PP)
    columns = [np.flatnonzero(np.equal(strata, stratum)) for stratum in dict.fromkeys(strata)]
    for a in columns:
        for b in columns:
            block = pairs_PP[np.ix_(a, b)]
            found[np.ix_(a, b)] = _beyond_own_pairs(block) if a is b else _beyond_two(block)
    return found


def _beyond_two(block_AB: Array) -> Array:
    return block_AB - block_AB.mean(axis=1, keepdims=True) - block_AB.mean(axis=0, keepdims=True) + block_AB.mean()


def _beyond_own_pairs(block_AA: Array) -> Array:
    n = len(block_AA)
    if n <= 2:
        return np.zeros_like(block_AA)
    others = block_AA - np.diag(np.diag(block_AA))
    mean = others.sum() / (n * (n - 1))
    own = (n - 1) / (n - 2) * (others.sum(axis=1) / (n - 1) - mean)
    rest = others - mean - own[:, None] - own
    np.fill_diagonal(rest, 0)
    return rest


def expansion(strata: Sequence[str]) -> float:
    """Return how much wider draws of prompts of these strata must be for their 95 % interval to be Student's; > 1.

    t / z, because the deviation is estimated (Hesterberg 2015, What Teachers Should Know About the Bootstrap,
    arXiv:1411.5279): 1.09 for 16 prompts of one stratum, 1.02 for 64. Degrees of freedom are prompts less strata, of
    several strata half of that: so many are left where the variances of strata of one size differ by a coefficient of
    variation of 1 (Satterthwaite 1946, Biometrics Bulletin 2, 110-114). Where nearly all of the variance is that of one
    colour there are fewer, and intervals are too narrow. One factor for all scores of a run keeps differences paired.
    """
    n_strata = len(set(strata))
    degrees = max(1.0, (len(strata) - n_strata) / min(n_strata, 2))
    tail = 0.5 + COVERAGE_PERCENT / 200
    return float(student.ppf(tail, degrees)) / NormalDist().inv_cdf(tail)


def widened(draws_R: Array, strata: Sequence[str]) -> Array:
    """Return the draws moved away from their mean by `expansion`: of the draws, not of one interval.

    It is linear, so differences of widened draws are widened differences, and a p-value is below 5 % just where the
    interval leaves 0 out. Far below 5 % p-values stay somewhat small: Student's tails are heavier still.
    """
    finite = np.isfinite(draws_R)
    if not finite.any():
        return draws_R
    centre = draws_R[finite].mean()
    return centre + expansion(strata) * (draws_R - centre)


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
