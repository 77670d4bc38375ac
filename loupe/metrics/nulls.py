"""What real photos score: real against real at the N that will be used, and real photos with their own captions.

A score of pictures can mean no more than its distance from these. Only train and val photos are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from loupe.metric_specs import MetricSpec
from loupe.metrics.image_set import ImageSet, TooFewImagesError
from loupe.metrics.scoring import resolve_compute
from loupe.records import Null


def real_nulls(
    train: ImageSet,
    val: ImageSet,
    specs: Mapping[str, MetricSpec],
    *,
    n_generated: int,
    n_draws: int,
    rng: np.random.Generator,
) -> dict[str, Null]:
    """Return for every set metric its distribution over subsets of the real train photos, scored against val.

    Each draw takes min(n_generated, number of train photos) of them without replacement; n_a says how many, and where
    that is all of them there is one draw. n_b is the number of val photos (0 where the metric has no real side).
    Where train photos are few the draws overlap, and the interval is narrower than fresh photos would make it.
    """
    n_a = min(n_generated, len(train))
    nulls = {}
    subsets = [train.rows(rng.permutation(len(train))[:n_a]) for _ in range(n_draws if n_a < len(train) else 1)]
    for key, spec in specs.items():
        if spec.level != "set":
            continue
        compute = resolve_compute(spec.compute)
        try:
            values = np.array([compute(subset, val) for subset in subsets])
        except TooFewImagesError:
            continue
        lo, hi = np.percentile(values, [2.5, 97.5])
        n_b = len(val) if spec.against_real else 0
        nulls[key] = Null(mean=float(values.mean()), lo=float(lo), hi=float(hi), n_a=n_a, n_b=n_b, n_draws=len(subsets))
    return nulls


def real_scores(
    val: ImageSet, specs: Mapping[str, MetricSpec], *, n_generated: int, n_draws: int, rng: np.random.Generator
) -> dict[str, float]:
    """Return the value of the real val photos, where one exists, for every metric that needs no second set.

    Means over images use all val photos. The Inception Score depends on N, so it is the mean over random subsets of
    min(n_generated, number of val photos).
    """
    n = min(n_generated, len(val))
    subsets = [val.rows(rng.permutation(len(val))[:n]) for _ in range(n_draws if n < len(val) else 1)]
    scores = {}
    for key, spec in specs.items():
        compute = resolve_compute(spec.compute)
        if spec.level == "image":
            values = compute(val)
            if np.isfinite(values).any():
                scores[key] = float(np.nanmean(values))
        elif not spec.against_real:
            try:
                scores[key] = float(np.mean([compute(subset, None) for subset in subsets]))
            except TooFewImagesError:
                continue
    return scores
