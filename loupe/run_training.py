"""How a training run is going, for its reader: validation curves, speed and memory, preview pictures.

Everything here grows while `train` is at work, and may be absent: an older run has none of it. It never writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from loupe.metric_specs import known_specs
from loupe.records import PromptRecord, SamplesManifest
from loupe.run_files import Cells
from loupe.run_samples import SampleView, files_by_sha256, recorded_samples
from loupe.run_scores import Score, StepScores
from loupe.run_store import RunStore
from loupe.train_records import TelemetryRow, ValidationRow, ValidationTimestepRow

Row = TypeVar("Row", bound=BaseModel)


def validation_curve(store: RunStore) -> tuple[ValidationRow, ...]:
    """Return metrics/validation.csv, ascending by step, 0 (the base model) first."""
    return _rows(store, store.paths.metrics / "validation.csv", ValidationRow)


def validation_timesteps(store: RunStore) -> tuple[ValidationTimestepRow, ...]:
    """Return metrics/validation_timesteps.csv, ascending by step, then timestep."""
    return _rows(store, store.paths.metrics / "validation_timesteps.csv", ValidationTimestepRow)


def overfitting_signs(store: RunStore) -> tuple[StepScores, ...]:
    """Return metrics/overfitting.csv, ascending by step: per checkpoint the scores that speak of overfitting.

    Its validation loss is that of `validation_curve`.
    """
    path = store.paths.metrics / "overfitting.csv"
    rows = store.files.table(path, required=("step",), made_by="evaluate") or ()
    return store.files.derived("overfitting signs", _signs, rows)


def train_telemetry(store: RunStore) -> tuple[TelemetryRow, ...]:
    """Return speed and memory of the process that trains here, or trained here last; nothing when that left none."""
    return _rows(store, store.paths.train_telemetry, TelemetryRow)


def training_left_s(store: RunStore, *, done: int, total: int) -> float | None:
    """Return the seconds left after `done` of `total` steps at the pace so far, pauses for validation included.

    None before the pace is known, and for the telemetry of an earlier run: it and train.csv are written together, so
    those of one run end with the same step.
    """
    telemetry = train_telemetry(store)
    if len(telemetry) < 2 or telemetry[-1].step != done:
        return None
    first, last = telemetry[0], telemetry[-1]
    return (last.elapsed_s - first.elapsed_s) / (last.step - first.step) * (total - done)


def preview_prompts(store: RunStore) -> tuple[PromptRecord, ...]:
    """Return the prompts of the previews, in their order; () when there are no previews."""
    manifest = _preview_manifest(store)
    return manifest.prompts if manifest else ()


def previews(store: RunStore) -> Iterator[SampleView]:
    """Yield the pictures that the latest training drew at its checkpoints, ordered by prompt, seed index, step.

    Step 0 is the base model. A picture whose bytes are gone or have changed is left out: training draws it again. For
    the others RunStore.sample_file gives the file of each SHA-256.
    """
    manifest, folder = _preview_manifest(store), store.paths.previews
    if manifest is None:
        return
    store.shown.update(files_by_sha256(folder, manifest))
    drawn = {(s.prompt_id, s.seed_index, s.step): s.file is not None for s in manifest.samples}
    for sample in recorded_samples(store.files, folder, manifest.samples, lambda _: True):
        if sample.sha256 is not None or not drawn[sample.key]:
            yield sample


def _signs(rows: Iterable[Cells]) -> tuple[StepScores, ...]:
    by_step = {
        int(row["step"]): {name: value for name, value in row.items() if isinstance(value, float)} for row in rows
    }
    return tuple(
        StepScores(step, None, None, None, None, {key: _sign(numbers, key) for key in known_specs(numbers)})
        for step, numbers in sorted(by_step.items())
    )


def _sign(row: Cells, key: str) -> Score:
    lo, hi = (float(row[name]) if name in row else None for name in (f"{key}_lo", f"{key}_hi"))
    return Score(float(row[key]), lo, hi, None, None, None)


def _preview_manifest(store: RunStore) -> SamplesManifest | None:
    return store.files.record(store.paths.previews / "manifest.json", SamplesManifest, made_by="train")


def _rows(store: RunStore, path: Path, kind: type[Row]) -> tuple[Row, ...]:
    required = [name for name, field in kind.model_fields.items() if field.annotation in (int, float)]
    cells = store.files.table(path, required=required, made_by="train") or ()
    return store.files.derived(path.name, partial(_records, kind), cells)


def _records(kind: type[Row], cells: Iterable[Cells]) -> tuple[Row, ...]:
    return tuple(kind.model_validate({name: row.get(name) for name in kind.model_fields}) for row in cells)
