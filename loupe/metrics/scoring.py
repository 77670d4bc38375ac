"""Scores of every checkpoint, their intervals and their paired differences to the base model. It reads no file.

Every checkpoint is resampled with the same counts per prompt, so a difference between two of them is paired on the
same prompts and seeds. A value that cannot be computed is absent, with the reason; never NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loupe.evaluation_records import Null
from loupe.metric_specs import MetricSpec, has_interval
from loupe.metrics.bootstrap import (
    LEAST_PROMPTS,
    Interval,
    counts_per_image,
    covering,
    mean_resamples,
    percentile_interval,
    resample_prompts,
    wilson_interval,
)
from loupe.metrics.image_set import Array, ImageSet, RealPhotos, TooFewImagesError
from loupe.records import BASE_STEP

ROLES = {"preference": "clip"}
"""Roles whose metrics read the arrays of another role."""


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

    def counts_of(self, images: ImageSet) -> NDArray[np.int64]:
        """Return [R, N]: how often each image of the set is taken."""
        return self.counts_of_cells(images.cells)

    def counts_of_cells(self, cells: Sequence[tuple[str, int]]) -> NDArray[np.int64]:
        """Return [R, N]: how often the image of each cell is taken."""
        return counts_per_image(self.counts_RP, self.prompts, [prompt for prompt, _ in cells])


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
    """Key -> why it has no value."""
    cells: frozenset[tuple[str, int]] = frozenset()
    """(prompt id, seed index) of the images."""


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
        scores = StepScores(step=step, n_used=len(images), cells=frozenset(images.cells))
        for key, spec in specs.items():
            try:
                scores.values[key] = estimate(images, real, spec, resampling)
            except TooFewImagesError as error:
                scores.absent[key] = str(error)
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


def _refuse_fewer_images(scored: Sequence[StepScores], specs: Mapping[str, MetricSpec]) -> None:
    most = max(scores.n_used for scores in scored)
    for scores in (s for s in scored if s.n_used < most):
        for key in [key for key in scores.values if not has_interval(specs[key])]:
            del scores.values[key]
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
    if a is None or b is None or pair.a.cells != pair.b.cells:
        a, b = (estimate(part, real, spec, resampling) for part in pair.parts())
    if spec.level == "image":
        return _mean_difference(a, b, resampling)
    draws = a.draws - b.draws
    return Estimate(a.value - b.value, draws, percentile_interval(draws))


def _mean_difference(a: Estimate, b: Estimate, resampling: Resampling) -> Estimate:
    row_of_b = {cell: row for row, cell in enumerate(b.cells)}
    differences = a.values - b.values[[row_of_b[cell] for cell in a.cells]]
    draws = mean_resamples(differences, resampling.counts_of_cells(a.cells))
    value = _mean_of_finite(differences, "a picture with a value on both sides")
    return Estimate(value, draws, percentile_interval(draws))


def estimate(images: ImageSet, real: RealPhotos, spec: MetricSpec, resampling: Resampling) -> Estimate:
    """Return one metric of one set of images.

    Raises TooFewImagesError when there is no value.
    """
    counts = resampling.counts_of(images)
    if spec.level == "image":
        values = values_per_image(images, real, spec)
        return replace(mean_estimate(values, counts, spec), cells=images.cells, values=values)
    if spec.resamples is None:
        raise ValueError(f"{spec.key} is a set metric without a `resamples` function")
    images, real = _as_seen(images, real, spec)
    value = resolve_compute(spec.compute)(images, real)
    draws = resolve_compute(spec.resamples)(images, real, counts) if len(counts) else np.zeros(0)
    return Estimate(value=value, draws=draws, interval=percentile_interval(draws) if has_interval(spec) else None)


def mean_estimate(values_N: Array, counts_RN: NDArray[np.int64], spec: MetricSpec) -> Estimate:
    """Return the mean over the images that have a value; TooFewImagesError, saying what it needs, when none has.

    The interval of a share (every value 0 or 1) holds Wilson's too: resamples of nothing but 1 never show a 0.
    """
    value, draws = _mean_of_finite(values_N, spec.needs), mean_resamples(values_N, counts_RN)
    interval, finite = percentile_interval(draws), values_N[np.isfinite(values_N)]
    if interval is not None and spec.unit == "share" and np.isin(finite, (0.0, 1.0)).all():
        interval = covering(interval, wilson_interval(value, len(finite)))
    return Estimate(value=value, draws=draws, interval=interval)


def value_of(images: ImageSet, real: RealPhotos, spec: MetricSpec) -> float:
    """Return one metric of one set of images without any resampling.

    Raises TooFewImagesError when there is no value.
    """
    if spec.level == "image":
        return _mean_of_finite(values_per_image(images, real, spec), spec.needs)
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


def _mean_of_finite(values_N: Array, needs: str) -> float:
    if not len(values_N):
        raise TooFewImagesError("there is no valid image; it needs at least 1")
    if not np.isfinite(values_N).any():
        raise TooFewImagesError(f"no image has a value; it needs {needs}")
    return float(np.nanmean(values_N))


def common_cells(a: ImageSet, b: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Return both sets reduced to the (prompt, seed) cells that they share, in one order."""
    row_of_b = {cell: row for row, cell in enumerate(b.cells)}
    rows_of_a = [row for row, cell in enumerate(a.cells) if cell in row_of_b]
    return a.rows(rows_of_a), b.rows([row_of_b[a.cells[row]] for row in rows_of_a])


def resampling_of(prompts: tuple[str, ...], n_draws: int, rng: np.random.Generator) -> Resampling:
    """Return the resamples of a run; none below two prompts, where no interval means anything."""
    if len(prompts) < LEAST_PROMPTS:
        return Resampling(prompts=prompts, counts_RP=np.zeros((0, len(prompts)), dtype=np.int64))
    return Resampling(prompts=prompts, counts_RP=resample_prompts(len(prompts), n_draws, rng))


def draws_by_name(scores: Iterable[StepScores]) -> dict[str, Array]:
    """Return '<step>/<key>' and '<step>/<key>/diff_base' -> bootstrap draws [R], for `select` to compare with."""
    draws: dict[str, Array] = {}
    for step_scores in scores:
        draws.update({f"{step_scores.step}/{key}": e.draws for key, e in step_scores.values.items()})
        draws.update({f"{step_scores.step}/{key}/diff_base": e.draws for key, e in step_scores.differences.items()})
    return draws
