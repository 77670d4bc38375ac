"""What real photos score: real against real at the N that will be used, and real photos with their own captions.

A score of pictures can mean no more than its distance from these. Only the photos that are handed in are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from loupe.evaluation_records import Null, RealScore
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
    subsets = _subsets(photos, n_a, n_draws, rng)
    nulls, drawn = {}, {}
    for key, spec in specs.items():
        try:
            known = null_of(real, spec, n_generated)
        except TooFewImagesError:
            continue
        if known is None:
            drawn[key] = spec
        else:
            nulls[key] = known
    for key, values in _values_of_subsets(photos, subsets, real, drawn).items():
        lo, hi = np.percentile(values, [2.5, 97.5])
        mean, n_b = float(np.mean(values)), len(real.held_out) if specs[key].against_real else 0
        nulls[key] = Null(mean=mean, lo=float(lo), hi=float(hi), n_a=n_a, n_b=n_b, n_draws=len(subsets))
    return {key: nulls[key] for key in specs if key in nulls}


def real_scores(
    real: RealPhotos, specs: Mapping[str, MetricSpec], *, n_generated: int, n_draws: int, rng: np.random.Generator
) -> dict[str, RealScore]:
    """Return the value of the held-out photos for every metric that does not compare with them.

    Means over images use all of them. Scores of a set depend on N, so they are means over random subsets of
    min(n_generated, number of held-out photos); where these are fewer than the pictures, `aim_of` of
    loupe/metric_specs.py takes the null's photos instead.
    """
    photos = as_prompts(real.held_out)
    n_of_sets = min(n_generated, len(photos))
    subsets = _subsets(photos, n_of_sets, n_draws, rng)
    alone = {key: spec for key, spec in specs.items() if not spec.against_real}
    of_images = {key: spec for key, spec in alone.items() if spec.level == "image"}
    of_sets = {key: spec for key, spec in alone.items() if spec.level == "set"}
    values = {
        **_values_of_subsets(photos, [np.arange(len(photos))], real, of_images),
        **_values_of_subsets(photos, subsets, real, of_sets),
    }
    return {
        key: RealScore(value=float(np.mean(values[key])), n=n_of_sets if key in of_sets else len(photos))
        for key in alone
        if key in values
    }


def as_prompts(photos: ImageSet) -> ImageSet:
    """Return the photos with their colour family as prompt, so that diversity within a prompt can be asked of them."""
    cells = tuple((f"family {family}", row) for row, family in enumerate(photos.array(ASKED_FAMILY)))
    return ImageSet(cells=cells, arrays=photos.arrays)


def _subsets(photos: ImageSet, n: int, n_draws: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Return the rows of each random subset; one where it is all of the photos."""
    return [rng.permutation(len(photos))[:n] for _ in range(n_draws if n < len(photos) else 1)]


def _values_of_subsets(
    photos: ImageSet, subsets: Sequence[NDArray[np.int64]], real: RealPhotos, specs: Mapping[str, MetricSpec]
) -> dict[str, list[float]]:
    """Return the values of those metrics that every subset has; only one subset is in memory at a time."""
    values: dict[str, list[float]] = {key: [] for key in specs}
    for rows in subsets:
        subset = photos.rows(rows)
        for key in list(values):
            try:
                values[key].append(value_of(subset, real, specs[key]))
            except TooFewImagesError:
                del values[key]
    return values
