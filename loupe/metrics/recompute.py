"""Every score of a run computed again from what it stored, and compared with what it wrote. It runs no network.

Sources: the features in data/evaluation and data/reference, the resamples, and per_image.csv; compared are all numbers
of checkpoints.csv, per_image.csv, overfitting.csv and summary.json. It writes nothing.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from loupe.atomic_io import read_record, sha256_file
from loupe.errors import PipelineError, problems_message
from loupe.evaluation_records import EvaluationManifest, ReferenceManifest
from loupe.metric_specs import applicable_specs, checkpoint_columns
from loupe.metrics import overfitting, tables
from loupe.metrics.evaluation import RESAMPLES, Evaluated, aims_of, evaluated_sets
from loupe.metrics.image_set import RealPhotos, TooFewImagesError
from loupe.metrics.image_set_files import read_arrays, read_image_set
from loupe.metrics.measure import Measured
from loupe.metrics.samples import marked_unreadable
from loupe.metrics.scoring import Resampling, mean_estimate
from loupe.paths import ProjectPaths, step_name
from loupe.records import SamplesManifest

RELATIVE, ABSOLUTE = 1e-6, 1e-7
"""Numbers are written with 8 significant digits; another machine moves the last bits of a kernel."""
MOST_SHOWN = 40
"""Disagreements that are worth printing: one changed feature moves every score of its checkpoint."""
BEYOND = "a cell beyond the header"
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What came of it."""

    n_numbers: int
    """Compared."""
    disagreements: tuple[str, ...]
    """One sentence each: where, what is written, what comes out."""


def recompute_scores(paths: ProjectPaths) -> Recomputed:
    """Compute every score again; PipelineError when something that is needed is not there or cannot be read."""
    manifest = read_record(paths.evaluation / "manifest.json", EvaluationManifest, made_by="evaluate")
    reference = read_record(paths.reference / "manifest.json", ReferenceManifest, made_by="reference")
    changed = [
        *_changed_files(paths.evaluation, manifest.files, paths.root),
        *_changed_files(paths.reference, reference.files, paths.root),
        *_changed_files(paths.samples, {"manifest.json": manifest.samples_sha256}, paths.root),
        *_changed_files(paths.reference, {"manifest.json": manifest.reference_sha256}, paths.root),
    ]
    evaluated = _evaluated_again(paths, manifest, reference)
    losses = overfitting.read_validation_losses(paths.metrics, evaluated.manifest.steps)
    evaluated = replace(evaluated, losses=losses)
    changed += [finding for finding in losses.findings if finding not in manifest.findings]
    comparison = _Comparison()
    columns = checkpoint_columns(evaluated.specs)
    rows, pictures = tables.checkpoint_rows(evaluated), tables.per_image_rows(evaluated)
    written_rows = _table(paths.metrics / "checkpoints.csv")
    comparison.rows("checkpoints.csv", written_rows, rows, columns, named_by=("step",))
    written = _table(paths.metrics / "per_image.csv")
    cell = ("step", "prompt_id", "seed_index")
    comparison.rows("per_image.csv", written, pictures, tables.per_image_columns(evaluated.specs), named_by=cell)
    comparison.rows(
        "checkpoints.csv, from per_image.csv", written_rows, _means_of_table(written, evaluated), (), named_by=("step",)
    )
    signs = overfitting.overfitting_rows(rows, losses, evaluated.specs)
    header = overfitting.overfitting_columns(evaluated.specs, losses)
    comparison.rows("overfitting.csv", _table(paths.metrics / "overfitting.csv"), signs, header, named_by=("step",))
    summary = tables.summary(evaluated, manifest.nulls)
    comparison.cells("summary.json", "", _json(paths.metrics / "summary.json"), summary, tuple(summary))
    return Recomputed(n_numbers=comparison.n_numbers, disagreements=(*changed, *comparison.found))


def disagreement_message(done: Recomputed) -> str:
    """Return the disagreements as one message, the first of them in full."""
    more = len(done.disagreements) - MOST_SHOWN
    shown = [*done.disagreements[:MOST_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    lines = problems_message("The scores do not agree with what they were computed from", shown)
    return f"{lines}\nMake the scores anew: dvc repro --force evaluate"


class _Comparison:
    """Counts what was compared and keeps a sentence for everything that differs."""

    def __init__(self) -> None:
        self.n_numbers = 0
        self.found: list[str] = []

    def rows(
        self,
        file: str,
        written: Sequence[Row],
        again: Sequence[Row],
        columns: Sequence[str],
        *,
        named_by: Sequence[str],
    ) -> None:
        """Compare rows by the cells `named_by`; `columns` is the whole header, or () to look at those of `again`."""
        by_name = {_name(row, named_by): row for row in again}
        of_file: dict[str, Row] = {}
        for row in written:
            name = _name(row, named_by)
            if name in of_file:
                self.found.append(f"{file}: {name} stands there twice")
            of_file[name] = row
        self.found += [f"{file}: there is no row of {name}" for name in by_name if name not in of_file]
        self.found += [f"{file}: nothing is known of {name}" for name in of_file if name not in by_name]
        for name in (name for name in by_name if name in of_file):
            self.cells(file, f"{name}, ", of_file[name], by_name[name], columns)

    def cells(self, file: str, place: str, written: Row, again: Row, columns: Sequence[str]) -> None:
        """Compare one row, or one JSON object, cell by cell; an empty cell and none are the same."""
        for name in dict.fromkeys((*columns, *again, *(written if columns else ()))):
            before, now = _value(written.get(name)), _value(again.get(name))
            self.n_numbers += isinstance(now, float)
            if not _same(before, now):
                self.found.append(
                    f"{file}: {place}{name} is {_shown(before)}, recomputed {_shown(now)}{_by(before, now)}"
                )


def _evaluated_again(paths: ProjectPaths, manifest: EvaluationManifest, reference: ReferenceManifest) -> Evaluated:
    drawn = read_record(paths.samples / "manifest.json", SamplesManifest, made_by="generate")
    samples = marked_unreadable(drawn, manifest.unreadable)
    files = _files_as_they_are(paths.evaluation, manifest.files)
    sets = {
        step: read_image_set(paths.evaluation, step_name(step), files, made_by="evaluate") for step in samples.steps
    }
    photos = _files_as_they_are(paths.reference, reference.files)
    train, val = (read_image_set(paths.reference, split, photos, made_by="reference") for split in ("train", "val"))
    arrays, metadata = read_arrays(paths.evaluation, RESAMPLES, files[RESAMPLES], made_by="evaluate")
    if "counts" not in arrays or "prompts" not in metadata:
        raise PipelineError(
            f"{paths.evaluation / RESAMPLES} holds no resamples. Make it anew: dvc repro --force evaluate"
        )
    prompts = tuple(json.loads(metadata["prompts"]))
    return evaluated_sets(
        samples,
        Measured(computed=0, reused=0),
        sets,
        real=RealPhotos(train=train, held_out=val),
        specs=applicable_specs(manifest.extractors),
        resampling=Resampling(prompts=prompts, counts_RP=arrays["counts"]),
        aims=aims_of(manifest.nulls, manifest.real_scores),
    )


def _means_of_table(written: Sequence[Row], evaluated: Evaluated) -> list[dict[str, Any]]:
    """Return per step the mean and interval of every column of per_image.csv that a score is the mean of."""
    rows = []
    for step, images in evaluated.sets.items():
        of_step = {(row["prompt_id"], row["seed_index"]): row for row in written if row["step"] == str(step)}
        counts = evaluated.resampling.counts_of(images)
        row: dict[str, Any] = {"step": step}
        for key, spec in evaluated.specs.items():
            if not spec.image_column:
                continue
            rows_of_cells = (of_step.get((prompt, str(index)), {}) for prompt, index in images.cells)
            cells = [_value(row_of_cell.get(spec.image_column)) for row_of_cell in rows_of_cells]
            values = np.array([value if isinstance(value, float) else np.nan for value in cells])
            try:
                row.update(tables.cells(key, mean_estimate(values, counts, spec)))
            except TooFewImagesError:
                row[key] = None
        rows.append(row)
    return rows


def _changed_files(folder: Path, files: Mapping[str, str], root: Path) -> Iterator[str]:
    for name, sha256 in files.items():
        path = folder / name
        if path.is_file() and sha256_file(path) != sha256:
            yield f"{path.relative_to(root)}: changed since the manifest was written"


def _files_as_they_are(folder: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Return file name -> hash as found: what was changed is said already, and its scores are still compared."""
    return {name: sha256_file(folder / name) if (folder / name).is_file() else sha for name, sha in files.items()}


def _table(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, restkey=BEYOND))
    except FileNotFoundError:
        raise PipelineError(f"{path} is not there. Run: dvc repro evaluate") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise PipelineError(f"{path} cannot be read: {error}. Make it anew: dvc repro --force evaluate") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise PipelineError(f"{path} is not there. Run: dvc repro evaluate") from None
    except ValueError as error:
        raise PipelineError(f"{path} cannot be read: {error}. Make it anew: dvc repro --force evaluate") from None


def _name(row: Row, named_by: Sequence[str]) -> str:
    return ", ".join(f"{name} {row.get(name)}" for name in named_by)


def _value(cell: Any) -> float | str | None:
    """Return a cell as a number where it is one; None for an empty one."""
    if cell is None or cell == "":
        return None
    try:
        return float(cell)
    except (TypeError, ValueError):
        return str(cell)


def _same(before: float | str | None, now: float | str | None) -> bool:
    if isinstance(before, float) and isinstance(now, float):
        return math.isclose(before, now, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return before == now


def _shown(value: float | str | None) -> str:
    return "absent" if value is None else f"{value:.8g}" if isinstance(value, float) else value


def _by(before: float | str | None, now: float | str | None) -> str:
    both = isinstance(before, float) and isinstance(now, float)
    return f" (differs by {abs(before - now):.3g})" if both else ""
