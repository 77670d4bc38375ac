"""Scores as rows of metrics/checkpoints.csv and metrics/per_image.csv, and as flat JSON for `dvc metrics`.

A value that does not exist is left out. Numbers are written with 8 significant digits: more is rounding of a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from loupe.evaluation_records import ExtractorInfo, Null, RealScore
from loupe.metric_specs import MetricSpec, array_prefix
from loupe.metrics.estimates import Estimate
from loupe.metrics.evaluation import Evaluated
from loupe.metrics.image_set import BACKGROUND_WHITE_SHARE, ImageSet, RealPhotos, TooFewImagesError
from loupe.metrics.memorisation import nearest_train
from loupe.metrics.samples import is_valid
from loupe.metrics.scalars import rounded
from loupe.metrics.scoring import values_per_image
from loupe.records import BASE_STEP

Scalars = dict[str, float | int | str]
FINAL_COLUMNS = (
    "score", "base", "base_lo", "base_hi", "selected", "selected_lo", "selected_hi", "diff", "diff_lo", "diff_hi",
    "real", "real_n", "null", "null_lo", "null_hi", "null_n",
)  # fmt: skip
"""The header of metrics/final.csv."""


def per_image_columns(specs: Mapping[str, MetricSpec]) -> list[str]:
    """Return the header of metrics/per_image.csv; `nearest_train` is the id of the nearest training photo."""
    scores = [spec.image_column for spec in specs.values() if spec.image_column]
    return [
        "step", "prompt_id", "seed_index", "seed", "file", *scores, "background_white_share", "nearest_train",
        "nearest_train_distance", "invalid_reason",
    ]  # fmt: skip


def checkpoint_rows(evaluated: Evaluated) -> list[Scalars]:
    """Return one row per step for `checkpoint_columns`."""
    rows = []
    for scores in evaluated.scores:
        row: Scalars = {
            "step": scores.step,
            "n_images": evaluated.n_images,
            "n_used": scores.n_used,
            "n_real": evaluated.n_real,
            "invalid_count": evaluated.n_images - scores.n_used,
        }
        for key, estimate in scores.values.items():
            row.update(cells(key, estimate))
        for key, difference in scores.differences.items():
            row.update(cells(f"{key}_diff_base", difference))
        for key, difference in scores.to_best.items():
            row.update(cells(f"{key}_diff_best", difference))
        row.update(evaluated.losses.by_step.get(scores.step, {}))
        rows.append(row)
    return rows


def cells(name: str, estimate: Estimate) -> Scalars:
    """Return `name`, and `name_lo` and `name_hi` where there is an interval."""
    found: Scalars = {name: rounded(estimate.value)}
    if estimate.interval is not None:
        found[f"{name}_lo"] = rounded(estimate.interval.lo)
        found[f"{name}_hi"] = rounded(estimate.interval.hi)
    return found


def per_image_rows(evaluated: Evaluated) -> list[dict[str, Any]]:
    """Return one row per sample of the manifest, invalid ones with their reason and no score."""
    columns, row_of, nearest_ids = {}, {}, {}
    for step, images in evaluated.sets.items():
        columns[step] = _image_columns(images, evaluated)
        row_of[step] = {cell: row for row, cell in enumerate(images.cells)}
        nearest_ids[step] = _nearest_ids(images, evaluated.real)
    rows = []
    for sample in evaluated.manifest.samples:
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
            row["nearest_train"] = nearest_ids[sample.step][index]
            row.update({name: rounded(value) for name, value in values.items() if np.isfinite(value)})
        rows.append(row)
    return rows


def summary(evaluated: Evaluated, nulls: Mapping[str, Null]) -> Scalars:
    """Return the few scalars that `dvc exp show` compares: base, last and, where checkpoints are ranked, best."""
    base, last = evaluated.scores[0], evaluated.scores[-1]
    found: Scalars = {
        "n_images": evaluated.n_images,
        "n_prompts": len(evaluated.prompts),
        "n_real": evaluated.n_real,
        "step_last": last.step,
        "invalid_last": evaluated.n_images - last.n_used,
    }
    for key, spec in evaluated.specs.items():
        if not spec.headline:
            continue
        for name, scores in (("base", base), ("last", last)):
            if key in scores.values:
                found[f"{key}_{name}"] = rounded(scores.values[key].value)
        ranked = [s for s in evaluated.scores if s.step != BASE_STEP and key in s.values]
        if spec.ranks and ranked:
            best = min(ranked, key=lambda s: s.values[key].value)
            found[f"{key}_best"] = rounded(best.values[key].value)
            found[f"{key}_best_step"] = best.step
        if spec.ranks and key in nulls:
            found[f"{key}_null"] = rounded(nulls[key].mean)
    return found


def final(
    evaluated: Evaluated, extractors: tuple[ExtractorInfo, ...], *, verdict: str, gates_failed: str | None
) -> Scalars:
    """Return metrics/final.json: the headline scores of the selected checkpoint on the test split, and minus base's.

    They are few, so that `dvc exp show` stays readable; `final_rows` has all.
    """
    base, selected = evaluated.scores
    found: Scalars = {
        "step": selected.step,
        "verdict": verdict,
        "n_images": evaluated.n_images,
        "n_prompts": len(evaluated.prompts),
        "n_real": evaluated.n_real,
        "n_used_base": base.n_used,
        "n_used_selected": selected.n_used,
        **{f"{array_prefix(info, extractors)}_extractor": info.name for info in extractors},
    }
    headline = (key for key, spec in evaluated.specs.items() if spec.headline)
    for key in headline:
        for name, by_key in (("selected", selected.values), ("diff", selected.differences)):
            if key in by_key:
                found[f"{key}_{name}"] = rounded(by_key[key].value)
    if gates_failed is not None:
        found["gates_failed"] = gates_failed
    return found


def final_rows(
    evaluated: Evaluated, *, nulls: Mapping[str, Null], real_scores: Mapping[str, RealScore]
) -> list[Scalars]:
    """Return metrics/final.csv, a row per score: base and selected checkpoint on the test split, and their difference.

    Beside them what the test photos themselves have, and the null.
    """
    base, selected = evaluated.scores
    estimates = {"base": base.values, "selected": selected.values, "diff": selected.differences}
    rows = []
    for key in evaluated.specs:
        row: Scalars = {"score": key}
        for name, by_key in estimates.items():
            if key in by_key:
                row.update(cells(name, by_key[key]))
        if key in real_scores:
            row["real"], row["real_n"] = rounded(real_scores[key].value), real_scores[key].n
        if key in nulls:
            null = nulls[key]
            row |= {"null": rounded(null.mean), "null_lo": rounded(null.lo), "null_hi": rounded(null.hi)}
            row["null_n"] = null.n_a
        if len(row) > 1:
            rows.append(row)
    return rows


def _image_columns(images: ImageSet, evaluated: Evaluated) -> dict[str, np.ndarray]:
    specs = [spec for spec in evaluated.specs.values() if spec.image_column]
    columns = {str(spec.image_column): _values_or_nan(images, evaluated.real, spec) for spec in specs}
    columns["background_white_share"] = images.array(BACKGROUND_WHITE_SHARE)
    columns["nearest_train_distance"] = nearest_train(images, evaluated.real.train).distance_N
    return columns


def _values_or_nan(images: ImageSet, real: RealPhotos, spec: MetricSpec) -> np.ndarray:
    """Return [N] values, all NaN where there are too few photos to have any: the reason is kept with the score."""
    try:
        return values_per_image(images, real, spec)
    except TooFewImagesError:
        return np.full(len(images), np.nan)


def _nearest_ids(images: ImageSet, real: RealPhotos) -> list[str]:
    return [real.train.cells[row][0] for row in nearest_train(images, real.train).row_N]
