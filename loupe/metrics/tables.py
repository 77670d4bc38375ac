"""Scores as rows of metrics/checkpoints.csv and metrics/per_image.csv, and as the flat metrics/summary.json.

A value that does not exist is left out. Numbers are written with 8 significant digits: more is rounding of a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loupe.metric_specs import MetricSpec
from loupe.metrics.image_set import BACKGROUND_WHITE_SHARE, ImageSet
from loupe.metrics.samples import is_valid
from loupe.metrics.scoring import Estimate, StepScores, resolve_compute
from loupe.records import BASE_STEP, Null, SamplesManifest

SIGNIFICANT_DIGITS = 8


def per_image_columns(specs: Mapping[str, MetricSpec]) -> list[str]:
    """Return the header of metrics/per_image.csv."""
    scores = [spec.image_column for spec in specs.values() if spec.image_column]
    return [
        "step", "prompt_id", "seed_index", "seed", "file", *scores, "background_white_share", "invalid_reason"
    ]  # fmt: skip


def checkpoint_rows(
    scores: Sequence[StepScores], manifest: SamplesManifest, *, n_real: int
) -> list[dict[str, float | int]]:
    """Return one row per step for `checkpoint_columns`."""
    rows = []
    for step_scores in scores:
        samples = [sample for sample in manifest.samples if sample.step == step_scores.step]
        row: dict[str, float | int] = {
            "step": step_scores.step,
            "n_images": len(samples),
            "n_used": step_scores.n_used,
            "n_real": n_real,
            "invalid_count": len(samples) - step_scores.n_used,
        }
        for key, estimate in step_scores.values.items():
            row.update(cells(key, estimate))
        for key, difference in step_scores.differences.items():
            row.update(cells(f"{key}_diff_base", difference))
        rows.append(row)
    return rows


def cells(name: str, estimate: Estimate) -> dict[str, float]:
    """Return `name`, and `name_lo` and `name_hi` where there is an interval."""
    found = {name: rounded(estimate.value)}
    if estimate.interval is not None:
        found[f"{name}_lo"] = rounded(estimate.interval.lo)
        found[f"{name}_hi"] = rounded(estimate.interval.hi)
    return found


def per_image_rows(
    manifest: SamplesManifest, sets: Mapping[int, ImageSet], specs: Mapping[str, MetricSpec]
) -> list[dict[str, Any]]:
    """Return one row per sample of the manifest, invalid ones with their reason and no score."""
    columns = {step: _image_columns(images, specs) for step, images in sets.items()}
    row_of = {step: {cell: row for row, cell in enumerate(images.cells)} for step, images in sets.items()}
    rows = []
    for sample in manifest.samples:
        row: dict[str, Any] = {
            "step": sample.step,
            "prompt_id": sample.prompt_id,
            "seed_index": sample.seed_index,
            "seed": sample.seed,
            "file": sample.file,
            "invalid_reason": sample.invalid_reason,
        }
        if is_valid(sample):
            index = row_of[sample.step][(sample.prompt_id, sample.seed_index)]
            values = {name: column[index] for name, column in columns[sample.step].items()}
            row.update({name: rounded(value) for name, value in values.items() if np.isfinite(value)})
        rows.append(row)
    return rows


def summary(
    scores: Sequence[StepScores],
    specs: Mapping[str, MetricSpec],
    nulls: Mapping[str, Null],
    *,
    n_images: int,
    n_prompts: int,
    n_real: int,
) -> dict[str, float | int]:
    """Return the few scalars that `dvc exp show` compares: base, last and, where checkpoints are ranked, best."""
    base, last = scores[0], scores[-1]
    found: dict[str, float | int] = {
        "n_images": n_images,
        "n_prompts": n_prompts,
        "n_real": n_real,
        "step_last": last.step,
        "invalid_last": n_images - last.n_used,
    }
    for key, spec in specs.items():
        for name, step_scores in (("base", base), ("last", last)):
            if key in step_scores.values:
                found[f"{key}_{name}"] = rounded(step_scores.values[key].value)
        ranked = [s for s in scores if s.step != BASE_STEP and key in s.values]
        if spec.ranks and ranked:
            best = min(ranked, key=lambda s: s.values[key].value)
            found[f"{key}_best"] = rounded(best.values[key].value)
            found["step_best"] = best.step
        if spec.ranks and key in nulls:
            found[f"{key}_null"] = rounded(nulls[key].mean)
    return found


def rounded(value: float) -> float:
    """Return `value` with 8 significant digits."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _image_columns(images: ImageSet, specs: Mapping[str, MetricSpec]) -> dict[str, np.ndarray]:
    columns = {spec.image_column: resolve_compute(spec.compute)(images) for spec in specs.values() if spec.image_column}
    columns["background_white_share"] = images.array(BACKGROUND_WHITE_SHARE)
    return columns
