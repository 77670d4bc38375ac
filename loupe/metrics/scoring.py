"""Scores of every checkpoint, their intervals and their paired differences to the base model. It reads no file.

Every checkpoint is resampled with the same weights per prompt, so a difference between two of them is paired on the
same prompts and seeds. A value that cannot be computed is absent, with the reason; never NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from loupe.evaluation_records import Null
from loupe.metric_specs import MetricSpec, depends_on_number
from loupe.metrics.bootstrap import LEAST_PROMPTS
from loupe.metrics.estimates import (
    Estimate,
    Resampling,
    bounded,
    difference_of_sets,
    first_rows,
    mean_difference,
    mean_estimate,
    mean_of_finite,
    set_estimate,
    share_of_photos_difference,
)
from loupe.metrics.image_set import Array, ImageSet, RealPhotos, TooFewImagesError
from loupe.records import BASE_STEP

ROLES = {"preference": "clip"}
"""Roles whose metrics read the arrays of another role."""


@dataclass(frozen=True, slots=True)
class StepScores:
    """Everything measured of one checkpoint; keys are those of loupe/metric_specs.py."""

    step: int
    n_used: int
    values: dict[str, Estimate] = field(default_factory=dict)
    differences: dict[str, Estimate] = field(default_factory=dict)
    """This checkpoint minus base, over the (prompt, seed) cells that are valid in both."""
    to_best: dict[str, Estimate] = field(default_factory=dict)
    """This checkpoint minus the one that is best in the metric, likewise; none for that one itself."""
    absent: dict[str, str] = field(default_factory=dict)
    """Key -> why it has no value; <key>_interval -> why that has no interval."""
    pictures: Mapping[tuple[str, int], bytes] = field(default_factory=dict)
    """(prompt id, seed index) of the images -> what they are, see ImageSet.contents."""


def resolve_compute(name: str) -> Any:
    """Return the function that 'package.module:function' names."""
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)


def score_steps(
    sets: Mapping[int, ImageSet], real: RealPhotos, specs: Mapping[str, MetricSpec], resampling: Resampling
) -> list[StepScores]:
    """Score every step's valid images against the real photos, ascending by step; step 0 is the base model.

    A score of a whole set that depends on the number of images is refused for a step that has fewer than another: it
    has its difference to base alone, which is taken over the same cells.
    """
    scored = []
    for step in sorted(sets):
        images = sets[step]
        scores = StepScores(step=step, n_used=len(images), pictures=images.contents())
        for key, spec in specs.items():
            try:
                found = estimate(images, real, spec, resampling)
            except TooFewImagesError as error:
                scores.absent[key] = str(error)
                continue
            scores.values[key] = found
            if found.interval is None and len(resampling.weights_RP):
                scores.absent[f"{key}_interval"] = _why_no_interval(found)
        scored.append(scores)
    _refuse_fewer_images(scored, specs)
    for scores in scored[1:]:
        pair = _Pair(scores, scored[0], sets)
        for key, spec in specs.items():
            try:
                scores.differences[key] = _difference(key, spec, pair, real=real, resampling=resampling)
            except TooFewImagesError as error:
                if key in scores.values:
                    scores.absent[f"{key}_diff_base"] = str(error)
    return scored


def _why_no_interval(found: Estimate) -> str:
    if len(first_rows(found.cells)) >= LEAST_PROMPTS and not len(found.values):
        return "without the pictures of some prompt there is no value; it needs more pictures"
    return f"it needs values of at least {LEAST_PROMPTS} prompts"


def _refuse_fewer_images(scored: Sequence[StepScores], specs: Mapping[str, MetricSpec]) -> None:
    most = max(scores.n_used for scores in scored)
    for scores in (s for s in scored if s.n_used < most):
        for key in [key for key in scores.values if depends_on_number(specs[key])]:
            del scores.values[key]
            scores.absent.pop(f"{key}_interval", None)
            scores.absent[key] = (
                f"it depends on the number of pictures and needs {most}, as other checkpoints have; there are "
                f"{scores.n_used}"
            )


def add_differences_to_best(
    scored: Sequence[StepScores],
    best_steps: Mapping[str, int],
    sets: Mapping[int, ImageSet],
    *,
    real: RealPhotos,
    specs: Mapping[str, MetricSpec],
    resampling: Resampling,
) -> None:
    """Fill `to_best` of every step, the base model's too."""
    by_step = {scores.step: scores for scores in scored}
    for best in sorted(set(best_steps.values())):
        keys = [key for key, step in best_steps.items() if step == best]
        for scores in (s for s in scored if s.step != best):
            pair = _Pair(scores, by_step[best], sets)
            for key in keys:
                try:
                    scores.to_best[key] = _difference(key, specs[key], pair, real=real, resampling=resampling)
                except TooFewImagesError as error:
                    if key in scores.values:
                        scores.absent[f"{key}_diff_best"] = str(error)


def best_steps(
    scored: Sequence[StepScores], specs: Mapping[str, MetricSpec], aims: Mapping[str, float]
) -> dict[str, int]:
    """Return metric key -> the checkpoint, base aside, that is best in it; the earliest of equals.

    `aims` is what real photos have, for metrics in which that is best; without it there is no best.
    """
    found: dict[str, int] = {}
    for key, spec in specs.items():
        values = {s.step: s.values[key].value for s in scored if s.step != BASE_STEP and key in s.values}
        if spec.better == "higher":
            values = {step: -value for step, value in values.items()}
        elif spec.better == "closer to real":
            values = {step: abs(value - aims[key]) for step, value in values.items() if key in aims}
        if values:
            found[key] = min(values, key=values.__getitem__)
    return found


@dataclass(slots=True)
class _Pair:
    """Two steps to compare."""

    a: StepScores
    b: StepScores
    sets: Mapping[int, ImageSet]
    _parts: tuple[ImageSet, ImageSet] | None = None

    @property
    def same_pictures(self) -> bool:
        """Whether the images of all cells that both have are the same."""
        a, b = self.a.pictures, self.b.pictures
        return all(a[cell] == b[cell] for cell in a.keys() & b.keys())

    def parts(self) -> tuple[ImageSet, ImageSet]:
        """Return the images of the cells that both have; read once, and the same arrays for every metric."""
        if self._parts is None:
            self._parts = common_cells(self.sets[self.a.step], self.sets[self.b.step])
        return self._parts


def _difference(key: str, spec: MetricSpec, pair: _Pair, *, real: RealPhotos, resampling: Resampling) -> Estimate:
    """Return a - b over the cells that both have, draws paired; their images are read only where a or b is of others.

    A mean is taken over the images that have a value on both sides: one without it takes its partner out too.
    Raises TooFewImagesError when there is no value.
    """
    a, b = pair.a.values.get(key), pair.b.values.get(key)
    if a is None or b is None or pair.a.pictures.keys() != pair.b.pictures.keys():
        a, b = (estimate(part, real, spec, resampling) for part in pair.parts())
    if spec.level == "image":
        return mean_difference(a, b, spec, resampling, same_pictures=pair.same_pictures)
    difference = difference_of_sets(a, b, a.cells)
    if spec.unit == "share" and not pair.same_pictures:
        return share_of_photos_difference(difference, a, b, len(real.held_out))
    return difference


def estimate(images: ImageSet, real: RealPhotos, spec: MetricSpec, resampling: Resampling) -> Estimate:
    """Return one metric of one set of images.

    Raises TooFewImagesError when there is no value.
    """
    if spec.level == "image":
        return mean_estimate(values_per_image(images, real, spec), images.cells, spec, resampling)
    if spec.resamples is None:
        raise ValueError(f"{spec.key} is a set metric without a `resamples` function")
    images, real = _as_seen(images, real, spec)
    value = resolve_compute(spec.compute)(images, real)
    if not len(resampling.weights_RP):
        return Estimate(value=value, draws=np.zeros(0), interval=None, cells=images.cells)
    kept_PN = images.prompt_index() != np.arange(len(first_rows(images.cells)))[:, None]
    without_P = resolve_compute(spec.resamples)(images, real, kept_PN.astype(np.int64))
    pairs_PP = None if spec.pairs is None else resolve_compute(spec.pairs)(images, real)
    found = set_estimate(value, without_P, images.cells, resampling, pairs_PP=pairs_PP)
    return bounded(found, spec, len(real.held_out))


def value_of(images: ImageSet, real: RealPhotos, spec: MetricSpec) -> float:
    """Return one metric of one set of images without any resampling.

    Raises TooFewImagesError when there is no value.
    """
    if spec.level == "image":
        return mean_of_finite(values_per_image(images, real, spec), spec.needs)
    images, real = _as_seen(images, real, spec)
    return float(resolve_compute(spec.compute)(images, real))


def values_per_image(images: ImageSet, real: RealPhotos, spec: MetricSpec) -> Array:
    """Return [N]: a metric of single images, NaN where an image has no value."""
    return resolve_compute(spec.compute)(*_as_seen(images, real, spec))


def null_of(real: RealPhotos, spec: MetricSpec, n_images: int) -> Null | None:
    """Return the null that the metric computes itself, or None when it has none."""
    if spec.null is None:
        return None
    shown = real if spec.arrays is None else real.seen_by(spec.arrays, ROLES.get(spec.extractor, spec.extractor))
    return resolve_compute(spec.null)(shown, n_images)


def _as_seen(images: ImageSet, real: RealPhotos, spec: MetricSpec) -> tuple[ImageSet, RealPhotos]:
    """Return both sides with the arrays of the metric's extractor under the names that its function reads."""
    if spec.arrays is None:
        return images, real
    role = ROLES.get(spec.extractor, spec.extractor)
    return images.seen_by(spec.arrays, role), real.seen_by(spec.arrays, role)


def common_cells(a: ImageSet, b: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Return both sets reduced to the (prompt, seed) cells that they share, in one order."""
    row_of_b = {cell: row for row, cell in enumerate(b.cells)}
    rows_of_a = [row for row, cell in enumerate(a.cells) if cell in row_of_b]
    return a.rows(rows_of_a), b.rows([row_of_b[a.cells[row]] for row in rows_of_a])


def draws_by_name(scores: Iterable[StepScores]) -> dict[str, Array]:
    """Return '<step>/<key>' and '<step>/<key>/diff_base' -> bootstrap draws [R], for `select` to compare with."""
    draws: dict[str, Array] = {}
    for step_scores in scores:
        draws.update({f"{step_scores.step}/{key}": e.draws for key, e in step_scores.values.items()})
        draws.update({f"{step_scores.step}/{key}/diff_base": e.draws for key, e in step_scores.differences.items()})
    return draws
