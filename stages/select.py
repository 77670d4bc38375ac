"""Recommend a checkpoint from the val scores, with the evidence in words, or say that there is no clear winner.

Reads metrics/checkpoints.csv and the bootstrap draws in data/evaluation; writes metrics/selection.json. The rule is in
loupe/metrics/selection.py and was fixed before the run.
"""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

from loupe.atomic_io import read_record, write_record
from loupe.errors import PipelineError
from loupe.params import Params
from loupe.paths import ProjectPaths, step_name
from loupe.records import BASE_STEP, EvaluationManifest
from loupe.stage import run_stage
from loupe.workstore import WorkStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from loupe.metrics.selection import StepEvidence


def select(params: Params, paths: ProjectPaths, store: WorkStore) -> None:
    """Run the stage; see the module's docstring."""
    from loupe.metric_specs import METRIC_SPECS
    from loupe.metrics.image_set_files import read_arrays
    from loupe.metrics.selection import compare_checkpoints, selection_record
    from loupe.metrics.selection_text import Setting, selection_reason

    del store  # there is nothing to compute that is worth keeping
    manifest = read_record(paths.evaluation / "manifest.json", EvaluationManifest, made_by="evaluate")
    file = "resamples.safetensors"
    draws, metadata = read_arrays(paths.evaluation, file, manifest.files[file], made_by="evaluate")
    distance_key = next(key for key in manifest.metric_keys if METRIC_SPECS[key].ranks)
    text_key = next(key for key in manifest.metric_keys if METRIC_SPECS[key].extractor == "clip")

    table = _read_scores(paths)
    evidence = {e.step: e for e in (_evidence(row, draws, distance_key, text_key) for row in table)}
    base = evidence.pop(BASE_STEP)
    if not evidence:
        raise PipelineError("There is no checkpoint to choose from: metrics/checkpoints.csv holds only the base model.")
    checkpoints = list(evidence.values())
    comparison = compare_checkpoints(
        checkpoints,
        text_key=text_key,
        min_background_ok=params.select.min_background_ok,
        max_invalid=params.select.max_invalid,
    )
    by_role = {info.role: info for info in manifest.extractors}
    setting = Setting(
        distance_key=distance_key,
        text_key=text_key,
        n_prompts=len(json.loads(metadata["prompts"])),
        n_real=manifest.n_real,
        distance_extractor=by_role["inception"],
        text_extractor=by_role["clip"],
        null=manifest.nulls.get(distance_key),
    )
    reason = selection_reason(comparison, base, checkpoints, setting)
    names = {step: step_name(step) for step in evidence}
    write_record(paths.metrics / "selection.json", selection_record(comparison, reason, names))
    print(f"select: {reason}")


def _read_scores(paths: ProjectPaths) -> list[dict[str, float | None]]:
    path = paths.metrics / "checkpoints.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise PipelineError(f"{path} is not there. Run: dvc repro evaluate") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise PipelineError(f"{path} cannot be read: {error}. Make it anew: dvc repro --force evaluate") from None
    if not rows or rows[0].get("step") != BASE_STEP:
        raise PipelineError(f"{path} does not begin with the base model. Make it anew: dvc repro --force evaluate")
    return sorted(rows, key=lambda row: row["step"] or 0)


def _evidence(
    row: Mapping[str, float | None], draws: Mapping[str, NDArray], distance_key: str, text_key: str
) -> StepEvidence:
    import numpy as np

    from loupe.metrics.selection import StepEvidence

    step = int(row["step"] or 0)
    none = np.zeros(0)
    return StepEvidence(
        step=step,
        n_used=int(row["n_used"] or 0),
        invalid_count=int(row["invalid_count"] or 0),
        background_ok=row.get("background_ok"),
        distance=row.get(distance_key),
        text_score=row.get(text_key),
        distance_draws=draws.get(f"{step}/{distance_key}", none),
        distance_gain=draws.get(f"{step}/{distance_key}/diff_base", none),
        text_gain=draws.get(f"{step}/{text_key}/diff_base", none),
    )


if __name__ == "__main__":
    run_stage("select", __doc__, select)
