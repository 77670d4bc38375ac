"""The recommendation from what `evaluate` wrote, its table of scores and its bootstrap draws, and its gates once more.

It writes nothing.
The rule is in loupe/metrics/selection.py.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping

from loupe.atomic_io import read_record
from loupe.errors import PipelineError
from loupe.evaluate_params import SelectParams
from loupe.evaluation_records import EvaluationManifest, Selection
from loupe.metric_specs import MetricSpec, applicable_specs
from loupe.metrics import tables
from loupe.metrics.evaluation import RESAMPLES, Evaluated
from loupe.metrics.image_set_files import read_arrays
from loupe.metrics.scoring import draws_by_name
from loupe.metrics.selection import compare_checkpoints, gates_failed
from loupe.metrics.selection_evidence import Gates, step_evidence
from loupe.metrics.selection_text import Setting, selection_reason, selection_record
from loupe.paths import ProjectPaths
from loupe.records import BASE_STEP

Row = dict[str, float | None]


def recommend(paths: ProjectPaths, settings: SelectParams) -> Selection:
    """Return the recommendation by these gates and weights; PipelineError when something needed is not there."""
    manifest = read_record(paths.evaluation / "manifest.json", EvaluationManifest, made_by="evaluate")
    draws, metadata = read_arrays(paths.evaluation, RESAMPLES, manifest.files[RESAMPLES], made_by="evaluate")
    keys = _keys_by_use(manifest, settings)
    rows = _read_scores(paths)
    base, *others = rows.values()
    if not others:
        raise PipelineError("There is no checkpoint to choose from: metrics/checkpoints.csv holds only the base model.")
    weights = settings.weights.model_dump()
    comparison = compare_checkpoints(
        [step_evidence(row, base, draws, keys) for row in others],
        keys={name: keys[name] for name in weights if name in keys},
        weights=weights,
        gates=_gates(settings, keys, n_held_out=manifest.n_real),
    )
    setting = Setting(
        rows=rows,
        distance_key=keys["distance"],
        n_prompts=len(json.loads(metadata["prompts"])),
        n_real=manifest.n_real,
        extractors=manifest.extractors,
        null=manifest.nulls.get(keys["distance"]),
    )
    return selection_record(comparison, selection_reason(comparison, setting))


def gates_failed_on_test(evaluated: Evaluated, settings: SelectParams) -> str:
    """Return which gates the selected checkpoint fails on the test split, "" for none; `confirm` scored no other."""
    keys = _uses(evaluated.specs)
    base, selected = tables.checkpoint_rows(evaluated)
    checkpoint = step_evidence(selected, base, draws_by_name(evaluated.scores), keys)
    gates = _gates(settings, keys, n_held_out=evaluated.n_real)
    return "; ".join(gates_failed([checkpoint], gates).get(checkpoint.step, []))


def _gates(settings: SelectParams, keys: Mapping[str, str], *, n_held_out: int) -> Gates:
    return Gates(
        text_key=keys["text"],
        min_background_ok=settings.min_background_ok,
        min_centred_ok=settings.min_centred_ok,
        max_invalid=settings.max_invalid,
        max_text_loss=settings.max_text_loss,
        memorisation_level=settings.memorisation_level,
        n_held_out=n_held_out,
    )


def _uses(specs: Mapping[str, MetricSpec]) -> dict[str, str]:
    """Return what `select` uses a metric for -> its key."""
    return {str(spec.criterion): key for key, spec in specs.items() if spec.criterion}


def _keys_by_use(manifest: EvaluationManifest, settings: SelectParams) -> dict[str, str]:
    """Return what `select` uses a metric for -> its key in this run; the distance is the one of select.distance.

    Raises PipelineError when the run has no such distance.
    """
    specs = applicable_specs(manifest.extractors)
    uses = _uses(specs)
    distance = uses.get(settings.distance, settings.distance)
    known = [key for key, spec in specs.items() if spec.unbiased]
    if distance not in known:
        left_out = "".join(f" Left out was {entry}: {reason}" for entry, reason in manifest.left_out.items())
        raise PipelineError(
            f"select.distance is {settings.distance!r}, which evaluate.extractors do not give; "
            f"this run has kid and cmmd (of the first extractors) and {', '.join(known)}.{left_out}"
        )
    return {**uses, "distance": distance}


def _read_scores(paths: ProjectPaths) -> dict[int, Row]:
    """Return step -> row, ascending, the base model first."""
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
    by_step = {int(row["step"] or 0): row for row in rows}
    return dict(sorted(by_step.items()))
