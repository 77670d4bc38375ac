"""Intervals of shares of yes-or-no answers, which have width where all answers are alike, as no resample has.

Pictures (or photos, of which a share is covered) count as independent answers here; that those of a prompt are alike is
what the interval by prompt says, and the one that is shown covers both.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from loupe.metrics.bootstrap import COVERAGE_PERCENT, Interval
from loupe.metrics.image_set import Array


def wilson_interval(share: float, n: int) -> Interval:
    """Return the 95 % interval of a share of n independent yes-or-no answers (Wilson 1927).

    Where all answers are alike every resample is, and a percentile interval would have no width; this one has.
    """
    z = NormalDist().inv_cdf(0.5 + COVERAGE_PERCENT / 200)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Interval(lo=centre - half if share > 0 else 0.0, hi=centre + half if share < 1 else 1.0)


def paired_share_interval(a_N: Array, b_N: Array) -> Interval:
    """Return the 95 % interval of share a minus share b of N >= 1 pairs of answers, each 0 or 1.

    Wilson's intervals of both, squared and added, less what the pairs have in common: method 10 of Newcombe 1998,
    Improved confidence intervals for the difference between binomial proportions based on paired data (Statistics in
    Medicine 17, 2635-2650). Its ends lie in [-1, 1]. Where all answers of a side are alike nothing in common can be
    seen, and it is his interval of independent samples.
    """
    return _newcombe(float(np.mean(a_N)), float(np.mean(b_N)), len(a_N), _correlation(a_N, b_N))


def share_difference_interval(share_a: float, share_b: float, n: int) -> Interval:
    """Return the 95 % interval of the difference of independent shares, each of n answers.

    Method 10 of Newcombe 1998 (Statistics in Medicine 17, 873-890).
    """
    return _newcombe(share_a, share_b, n, phi=0.0)


def _newcombe(share_a: float, share_b: float, n: int, phi: float) -> Interval:
    a, b = wilson_interval(share_a, n), wilson_interval(share_b, n)
    below, above = (
        math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))
        for one, other in ((share_a - a.lo, b.hi - share_b), (a.hi - share_a, share_b - b.lo))
    )
    difference = share_a - share_b
    return Interval(lo=max(-1.0, difference - below), hi=min(1.0, difference + above))


def _correlation(a_N: Array, b_N: Array) -> float:
    """Return the correlation of the answers, a positive one less a correction for continuity; 0 where it has none."""
    n, yes_a, yes_b = len(a_N), float(np.sum(a_N)), float(np.sum(b_N))
    both = float(a_N @ b_N)
    spread = yes_a * (n - yes_a) * yes_b * (n - yes_b)
    if spread == 0:
        return 0.0
    excess = both * (n - yes_a - yes_b + both) - (yes_a - both) * (yes_b - both)
    return (max(excess - n / 2, 0.0) if excess > 0 else excess) / math.sqrt(spread)
