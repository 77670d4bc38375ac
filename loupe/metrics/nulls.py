"""What real photos score: real against real at the N that will be used, and real photos with their own captions.

A score of pictures can mean no more than its distance from these. Only the photos that are handed in are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from loupe.evaluation_records import Null
from loupe.metric_specs import MetricSpec
from loupe.metrics.image_set import ASKED_FAMILY, ImageSet, RealPhotos, TooFewImagesError
from loupe.metrics.scoring import null_of, value_of


def real_nulls(
    real: RealPhotos,
    specs: Mapping[str, MetricSpec],
    *,
    n_generated: int,
    n_draws: int,
    rng: np.random.Generator,
) -> dict[str, Null]:
    """Return for every metric its distribution over subsets of the real train photos, scored as if they were drawn.

    Each draw takes min(n_generated, number of train photos) of them without replacement; n_a says how many, and where
    that is all of them there is one draw. n_b is the number of held-out photos (0 where the metric does not compare
    with them). Where train photos are few the draws overlap, and the interval is narrower than fresh photos would make
    it. A metric with a null function of its own (what is near a train photo cannot be asked of train photos) has that.
    """
    n_a = min(n_generated, len(real.train))
    photos = as_prompts(real.train)
    subsets = [photos.rows(rng.permutation(len(photos))[:n_a]) for _ in range(n_draws if n_a < len(photos) else 1)]
    nulls = {}
    for key, spec in specs.items():
        try:
            null = null_of(real, spec, n_generated)
            if null is not None:
                nulls[key] = null
                continue
            values = np.array([value_of(subset, real, spec) for subset in subsets])
        except TooFewImagesError:
            continue
        lo, hi = np.percentile(values, [2.5, 97.5])
        n_b = len(real.held_out) if spec.against_real else 0
        nulls[key] = Null(mean=float(values.mean()), lo=float(lo), hi=float(hi), n_a=n_a, n_b=n_b, n_draws=len(subsets))
    return nulls


def real_scores(
    real: RealPhotos, specs: Mapping[str, MetricSpec], *, n_generated: int, n_draws: int, rng: np.random.Generator
) -> dict[str, float]:
    """Return the value of the held-out photos for every metric that does not compare with them.

    Means over images use all of them. Scores of a set depend on N, so they are means over random subsets of
    min(n_generated, number of held-out photos).
    """
    photos = as_prompts(real.held_out)
    n = min(n_generated, len(photos))
    subsets = [photos.rows(rng.permutation(len(photos))[:n]) for _ in range(n_draws if n < len(photos) else 1)]
    scores = {}
    for key, spec in specs.items():
        if spec.against_real:
            continue
        try:
            over = [photos] if spec.level == "image" else subsets
            scores[key] = float(np.mean([value_of(part, real, spec) for part in over]))
        except TooFewImagesError:
            continue
    return scores


def as_prompts(photos: ImageSet) -> ImageSet:
    """Return the photos with their colour family as prompt, so that diversity within a prompt can be asked of them."""
    cells = tuple((f"family {family}", row) for row, family in enumerate(photos.array(ASKED_FAMILY)))
    return ImageSet(cells=cells, arrays=photos.arrays)
