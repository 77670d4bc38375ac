"""The result on the test split computed again from what `confirm` stored, and compared with what it wrote.

Sources: the features in data/confirmation, the test photos' among them, and in data/reference; compared are all numbers
of metrics/final.json and metrics/final.csv. It opens no picture of the test split.
"""

from __future__ import annotations

from loupe.atomic_io import read_record
from loupe.evaluate_params import SelectParams
from loupe.evaluation_records import EvaluationManifest, ReferenceManifest, Selection
from loupe.metrics import tables
from loupe.metrics.evaluation_files import CONFIRMED
from loupe.metrics.image_set import RealPhotos
from loupe.metrics.image_set_files import read_image_set
from loupe.metrics.number_comparison import NumberComparison, read_object, read_table
from loupe.metrics.recommendation import gates_failed_on_test
from loupe.metrics.recompute import (
    Recomputed,
    changed_files,
    draw_numbers,
    evaluated_again,
    files_as_they_are,
    manifest_numbers,
)
from loupe.paths import ProjectPaths

MADE_BY = "confirm"


def recompute_final(paths: ProjectPaths, settings: SelectParams | None) -> Recomputed:
    """Compute the result on the test split again; PipelineError when something that is needed is not there.

    `settings` are those of the gates; None leaves out which of them are failed.
    """
    folder = paths.confirmation
    manifest = read_record(folder / CONFIRMED, EvaluationManifest, made_by=MADE_BY)
    reference = read_record(paths.reference / "manifest.json", ReferenceManifest, made_by="reference")
    changed = [
        *changed_files(folder, {**manifest.files, "manifest.json": manifest.samples_sha256}, paths.root),
        *changed_files(paths.reference, {"manifest.json": manifest.reference_sha256}, paths.root),
    ]
    photos = files_as_they_are(paths.reference, reference.files)
    train = read_image_set(paths.reference, "train", photos, made_by="reference")
    test = read_image_set(folder, "test", files_as_they_are(folder, manifest.files), made_by=MADE_BY)
    real = RealPhotos(train=train, held_out=test)
    evaluated = evaluated_again(folder, folder, manifest, real, aims=None, made_by=MADE_BY)
    comparison = NumberComparison()
    written = read_object(paths.metrics / "final.json", made_by=MADE_BY)
    if settings is None:
        written.pop("gates_failed", None)
    selection = read_record(paths.metrics / "selection.json", Selection, made_by="select")
    failed = None if settings is None else gates_failed_on_test(evaluated, settings)
    again = tables.final(evaluated, manifest.extractors, verdict=selection.verdict, gates_failed=failed)
    again["step"] = selection.step
    comparison.cells("final.json", "", written, again, tuple(again))
    rows = tables.final_rows(evaluated, nulls=manifest.nulls, real_scores=manifest.real_scores)
    table = read_table(paths.metrics / "final.csv", made_by=MADE_BY)
    comparison.rows("final.csv", table, rows, tables.FINAL_COLUMNS, named_by=("score",))
    draw_numbers(comparison, manifest, evaluated, folder, made_by=MADE_BY)
    manifest_numbers(comparison, manifest, evaluated, file=f"data/confirmation/{CONFIRMED}")
    return Recomputed(n_numbers=comparison.n_numbers, disagreements=(*changed, *comparison.found))
