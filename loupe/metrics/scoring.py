"""Scores of every checkpoint, their intervals and their paired differences to the base model. It reads no file.

Every checkpoint is resampled with the same counts per prompt, so a difference between two of them is paired on the
same prompts and seeds. A value that cannot be computed is absent, with the reason; never NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loupe.metric_specs import MetricSpec, has_interval
from loupe.metrics.bootstrap import (
    LEAST_PROMPTS,
    Interval,
    counts_per_image,
    mean_resamples,
    percentile_interval,
    resample_prompts,
)
from loupe.metrics.image_set import Array, ImageSet, RealPhotos, TooFewImagesError
from loupe.records import BASE_STEP


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its bootstrap draws (empty when there are too few prompts) and the interval worth showing."""

    value: float
    draws: Array
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Resampling:
    """How often each prompt occurs in each resample; the same for every checkpoint."""

    prompts: tuple[str, ...]
    counts_RP: NDArray[np.int64]
    """[R, P]; no rows when there are fewer than two prompts."""

    def counts_of(self, images: ImageSet) -> NDArray[np.int64]:
        """Return [R, N]: how often each image of the set is taken."""
        return counts_per_image(self.counts_RP, self.prompts, [prompt for prompt, _ in images.cells])


@dataclass(frozen=True, slots=True)
class StepScores:
    """Everything measured of one checkpoint; keys are those of loupe/metric_specs.py."""

    step: int
    n_used: int
    values: dict[str, Estimate] = field(default_factory=dict)
    differences: dict[str, Estimate] = field(default_factory=dict)
    """This checkpoint minus base, over the (prompt, seed) cells that are valid in both."""
    absent: dict[str, str] = field(default_factory=dict)
    """Key -> why it has no value."""


def resolve_compute(name: str) -> Any:
    """Return the function that 'package.module:function' names."""
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)


def score_steps(
    sets: Mapping[int, ImageSet], real: RealPhotos, specs: Mapping[str, MetricSpec], resampling: Resampling
) -> list[StepScores]:
    """Score every step's valid images against the real photos, ascending by step; step 0 is the base model."""
    base = sets[BASE_STEP]
    scored = []
    for step in sorted(sets):
        scores = StepScores(step=step, n_used=len(sets[step]))
        for key, spec in specs.items():
            try:
                scores.values[key] = estimate(sets[step], real, spec, resampling)
            except TooFewImagesError as error:
                scores.absent[key] = str(error)
        scored.append(scores)
    for scores in scored:
        if scores.step != BASE_STEP:
            pair = common_cells(sets[scores.step], base)
            _add_differences(scores, scored[0], pair, real=real, specs=specs, resampling=resampling)
    return scored


def _add_differences(
    scores: StepScores,
    base_scores: StepScores,
    pair: tuple[ImageSet, ImageSet],
    *,
    real: RealPhotos,
    specs: Mapping[str, MetricSpec],
    resampling: Resampling,
) -> None:
    """Fill scores.differences: checkpoint minus base over the cells that both have (`pair`), draws paired."""
    all_in_common = len(pair[0]) == scores.n_used == base_scores.n_used
    for key in [key for key in specs if key in scores.values and key in base_scores.values]:
        a, b = scores.values[key], base_scores.values[key]
        if not all_in_common:
            try:
                a, b = (estimate(part, real, specs[key], resampling) for part in pair)
            except TooFewImagesError as error:
                scores.absent[f"{key}_diff_base"] = str(error)
                continue
        draws = a.draws - b.draws
        scores.differences[key] = Estimate(a.value - b.value, draws, percentile_interval(draws))


def estimate(images: ImageSet, real: RealPhotos, spec: MetricSpec, resampling: Resampling) -> Estimate:
    """Return one metric of one set of images.

    Raises TooFewImagesError when there is no value.
    """
    counts = resampling.counts_of(images)
    compute = resolve_compute(spec.compute)
    if spec.level == "image":
        values = compute(images, real)
        value, draws = _mean_of_finite(values), mean_resamples(values, counts)
        return Estimate(value=value, draws=draws, interval=percentile_interval(draws))
    if spec.resamples is None:
        raise ValueError(f"{spec.key} is a set metric without a `resamples` function")
    value = compute(images, real)
    draws = resolve_compute(spec.resamples)(images, real, counts) if len(counts) else np.zeros(0)
    return Estimate(value=value, draws=draws, interval=percentile_interval(draws) if has_interval(spec) else None)


def value_of(images: ImageSet, real: RealPhotos, spec: MetricSpec) -> float:
    """Return one metric of one set of images without any resampling.

    Raises TooFewImagesError when there is no value.
    """
    result = resolve_compute(spec.compute)(images, real)
    return _mean_of_finite(result) if spec.level == "image" else float(result)


def _mean_of_finite(values_N: Array) -> float:
    if not np.isfinite(values_N).any():
        raise TooFewImagesError("no image has a value" if len(values_N) else "there is no valid image")
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
