"""What real photos score: real against real at the N that will be used, and real photos with their own captions.

A score of pictures can mean no more than its distance from these. Only the photos that are handed in are looked at.
The text-image gap of a picture depends on which other prompts there are: photos of one colour have captions that are
nearly alike, and among all of them every gap is small. So photos are chosen for it as captions are for prompts, as many
and spread over the colours. Prompts of a run that are no captions have a wording of their own, which no photo has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loupe.evaluation_records import Null, PhotoDraws, RealScore
from loupe.metric_specs import MetricSpec
from loupe.metrics.clip_score import clip_gaps
from loupe.metrics.image_set import ASKED_FAMILY, ImageSet, RealPhotos, TooFewImagesError
from loupe.metrics.scoring import null_of, resolve_compute, value_of


def photo_scores(real: RealPhotos, specs: Mapping[str, MetricSpec], draws: PhotoDraws) -> dict[str, dict[str, Any]]:
    """Return `nulls` and `real_scores`, drawn as `draws` says."""
    size = draws.model_dump(include={"n_generated", "n_prompts", "n_draws"})
    return {
        name: score(real, specs, rng=np.random.default_rng([draws.seed, draws.stream + place]), **size)
        for place, (name, score) in enumerate({"nulls": real_nulls, "real_scores": real_scores}.items())
    }


def real_nulls(
    real: RealPhotos,
    specs: Mapping[str, MetricSpec],
    *,
    n_generated: int,
    n_prompts: int,
    n_draws: int,
    rng: np.random.Generator,
) -> dict[str, Null]:
    """Return for every metric its distribution over subsets of the real train photos, scored as if they were drawn.

    Each draw takes min(n_generated, number of train photos) of them without replacement; n_a says how many, and where
    that is all of them there is one draw. n_b is the number of held-out photos (0 where the metric does not compare
    with them). Where train photos are few the draws overlap, and the interval is narrower than fresh photos would make
    it. They are taken regardless of colour: of pictures that are spread over the colours, as captions are, a set score
    can be better still. A metric with a null function of its own (what is near a train photo cannot be asked of train
    photos) has that.
    A text-image gap is of `n_prompts` photos, spread over the colours.
    """
    n_a = min(n_generated, len(real.train))
    photos, n_seeds = real.train, max(1, n_generated // n_prompts)
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
    gaps = {key: spec for key, spec in drawn.items() if _is_gap(spec)}
    others = {key: spec for key, spec in drawn.items() if key not in gaps}
    like_prompts = _subsets_like_prompts(photos, n_prompts, n_draws, rng)
    for chosen, of_specs in ((subsets, others), (like_prompts, gaps)):
        for key, values in _values_of_subsets(photos, chosen, real, of_specs, n_seeds=n_seeds).items():
            lo, hi = np.percentile(values, [2.5, 97.5])
            mean, n_b = float(np.mean(values)), len(real.held_out) if specs[key].against_real else 0
            nulls[key] = Null(mean=mean, lo=float(lo), hi=float(hi), n_a=len(chosen[0]), n_b=n_b, n_draws=len(chosen))
    return {key: nulls[key] for key in specs if key in nulls}


def real_scores(
    real: RealPhotos,
    specs: Mapping[str, MetricSpec],
    *,
    n_generated: int,
    n_prompts: int,
    n_draws: int,
    rng: np.random.Generator,
) -> dict[str, RealScore]:
    """Return the value of the held-out photos for every metric that does not compare with them.

    Means over images use all of them. Scores of a set depend on N, so they are means over random subsets of
    min(n_generated, number of held-out photos); where these are fewer than the pictures, `aim_of` of
    loupe/metric_specs.py takes the null's photos instead. A text-image gap is the mean over subsets of `n_prompts`
    photos, spread over the colours.
    """
    photos, n_seeds = real.held_out, max(1, n_generated // n_prompts)
    alone = {key: spec for key, spec in specs.items() if not spec.against_real}
    chosen = {
        "image": [np.arange(len(photos))],
        "set": _subsets(photos, min(n_generated, len(photos)), n_draws, rng),
        "gap": _subsets_like_prompts(photos, n_prompts, n_draws, rng),
    }
    kinds = {key: "gap" if _is_gap(spec) else spec.level for key, spec in alone.items()}
    found = {}
    for kind, subsets in chosen.items():
        of_kind = {key: spec for key, spec in alone.items() if kinds[key] == kind}
        for key, values in _values_of_subsets(photos, subsets, real, of_kind, n_seeds=n_seeds).items():
            found[key] = RealScore(value=float(np.mean(values)), n=len(subsets[0]))
    return {key: found[key] for key in alone if key in found}


def as_prompts(photos: ImageSet, n_seeds: int) -> ImageSet:
    """Return the photos as pictures of prompts: `n_seeds` of one colour family are a prompt's, in their order.

    So what is asked of the pictures of a prompt together can be asked of photos, of as many.
    """
    seen: dict[int, int] = {}
    cells = []
    for family in photos.array(ASKED_FAMILY).tolist():
        place = seen[family] = seen.get(family, -1) + 1
        cells.append((f"family {family}, {place // n_seeds}", place % n_seeds))
    return ImageSet(cells=tuple(cells), arrays=photos.arrays)


def _subsets(photos: ImageSet, n: int, n_draws: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Return the rows of each random subset; one where it is all of the photos."""
    return [rng.permutation(len(photos))[:n] for _ in range(n_draws if n < len(photos) else 1)]


def _is_gap(spec: MetricSpec) -> bool:
    """Whether the metric compares a picture's own prompt with the others of its set."""
    return resolve_compute(spec.compute) is clip_gaps


def _subsets_like_prompts(
    photos: ImageSet, n_prompts: int, n_draws: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Return the rows of random choices of photos, round-robin over the colour families, the most frequent first."""
    families, place, sizes = np.unique(photos.array(ASKED_FAMILY), return_inverse=True, return_counts=True)
    rank = np.empty(len(families), dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(families))
    subsets = []
    for _ in range(n_draws if n_prompts < len(photos) else 1):
        order = rng.permutation(len(photos))
        turn = np.empty(len(order), dtype=np.int64)
        for family in range(len(families)):
            turn[place[order] == family] = np.arange(sizes[family])
        subsets.append(order[np.lexsort((rank[place[order]], turn))][:n_prompts])
    return subsets


def _values_of_subsets(
    photos: ImageSet,
    subsets: Sequence[NDArray[np.int64]],
    real: RealPhotos,
    specs: Mapping[str, MetricSpec],
    *,
    n_seeds: int,
) -> dict[str, list[float]]:
    """Return the values of those metrics that every subset has; only one subset is in memory at a time."""
    values: dict[str, list[float]] = {key: [] for key in specs}
    for rows in subsets:
        if not values:
            break
        subset = as_prompts(photos.rows(rows), n_seeds)
        for key in list(values):
            try:
                values[key].append(value_of(subset, real, specs[key]))
            except TooFewImagesError:
                del values[key]
    return values
