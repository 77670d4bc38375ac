"""Every score of a run computed again from what it stored, and compared with what it wrote. It runs no network.

Sources: the features in data/evaluation and data/reference, the resamples, and per_image.csv; compared are all numbers
of checkpoints.csv, per_image.csv, overfitting.csv and summary.json, what real photos and controls score, the draws that
claims are made from, and the recommendation. It writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from loupe.atomic_io import read_record, sha256_file
from loupe.errors import PipelineError, problems_message
from loupe.evaluate_params import SelectParams
from loupe.evaluation_records import EvaluationManifest, ReferenceManifest, Selection, Standing
from loupe.metric_specs import applicable_specs, checkpoint_columns
from loupe.metrics import overfitting, tables
from loupe.metrics.bootstrap import strata_of
from loupe.metrics.controls import FILES, control_scores
from loupe.metrics.estimates import Resampling, mean_estimate
from loupe.metrics.evaluation import RESAMPLES, Evaluated, aims_of, evaluated_sets
from loupe.metrics.image_set import RealPhotos, TooFewImagesError
from loupe.metrics.image_set_files import read_arrays, read_image_set
from loupe.metrics.measure import Measured
from loupe.metrics.nulls import photo_scores
from loupe.metrics.number_comparison import NumberComparison, Row, number_or_text, read_object, read_table
from loupe.metrics.recommendation import recommend
from loupe.metrics.samples import marked_unreadable
from loupe.metrics.scoring import draws_by_name
from loupe.paths import ProjectPaths, step_name
from loupe.records import SamplesManifest

MANIFEST = "data/evaluation/manifest.json"
MOST_SHOWN = 40
"""Disagreements that are worth printing: one changed feature moves every score of its checkpoint."""


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
        *changed_files(paths.evaluation, manifest.files, paths.root),
        *changed_files(paths.reference, reference.files, paths.root),
        *changed_files(paths.samples, {"manifest.json": manifest.samples_sha256}, paths.root),
        *changed_files(paths.reference, {"manifest.json": manifest.reference_sha256}, paths.root),
    ]
    photos = files_as_they_are(paths.reference, reference.files)
    train, val = (read_image_set(paths.reference, split, photos, made_by="reference") for split in ("train", "val"))
    aims, real = aims_of(manifest.nulls, manifest.real_scores), RealPhotos(train=train, held_out=val)
    evaluated = evaluated_again(paths.evaluation, paths.samples, manifest, real, aims=aims, made_by="evaluate")
    losses = overfitting.read_validation_losses(paths.metrics, evaluated.manifest.steps)
    evaluated = replace(evaluated, losses=losses)
    changed += [finding for finding in losses.findings if finding not in manifest.findings]
    comparison = NumberComparison()
    columns = checkpoint_columns(evaluated.specs)
    rows, pictures = tables.checkpoint_rows(evaluated), tables.per_image_rows(evaluated)
    written_rows = read_table(paths.metrics / "checkpoints.csv", made_by="evaluate")
    comparison.rows("checkpoints.csv", written_rows, rows, columns, named_by=("step",))
    written = read_table(paths.metrics / "per_image.csv", made_by="evaluate")
    cell = ("step", "prompt_id", "seed_index")
    comparison.rows("per_image.csv", written, pictures, tables.per_image_columns(evaluated.specs), named_by=cell)
    comparison.rows(
        "checkpoints.csv, from per_image.csv", written_rows, _means_of_table(written, evaluated), (), named_by=("step",)
    )
    signs = overfitting.overfitting_rows(rows, losses, evaluated.specs)
    header = overfitting.overfitting_columns(evaluated.specs, losses)
    of_steps = read_table(paths.metrics / "overfitting.csv", made_by="evaluate")
    comparison.rows("overfitting.csv", of_steps, signs, header, named_by=("step",))
    summary = tables.summary(evaluated, manifest.nulls)
    shown = read_object(paths.metrics / "summary.json", made_by="evaluate")
    comparison.cells("summary.json", "", shown, summary, tuple(summary))
    draw_numbers(comparison, manifest, evaluated, paths.evaluation, made_by="evaluate")
    manifest_numbers(comparison, manifest, evaluated, file=MANIFEST)
    _control_numbers(comparison, manifest, evaluated, paths.evaluation)
    return Recomputed(n_numbers=comparison.n_numbers, disagreements=(*changed, *comparison.found))


def recompute_selection(paths: ProjectPaths, settings: SelectParams) -> Recomputed:
    """Apply the rule again; PipelineError when something that is needed is not there or cannot be read."""
    written = read_record(paths.metrics / "selection.json", Selection, made_by="select").model_dump(mode="json")
    again = recommend(paths, settings).model_dump(mode="json")
    comparison = NumberComparison()
    standings, of_file = again.pop("standings"), written.pop("standings")
    for part in ("criteria", "gates_failed"):
        before, now = written.pop(part), again.pop(part)
        comparison.cells("selection.json", f"{part}, ", before, now, tuple(before))
    comparison.cells("selection.json", "", written, again, tuple(again))
    columns = tuple(Standing.model_fields)
    for name in dict.fromkeys((*standings, *of_file)):
        comparison.cells("selection.json", f"{name}, ", of_file.get(name, {}), standings.get(name, {}), columns)
    return Recomputed(n_numbers=comparison.n_numbers, disagreements=tuple(comparison.found))


def draw_numbers(
    comparison: NumberComparison, manifest: EvaluationManifest, evaluated: Evaluated, folder: Path, *, made_by: str
) -> None:
    """Compare the draws of every score and difference, which `select` makes its claims from."""
    files = files_as_they_are(folder, manifest.files)
    written, _ = read_arrays(folder, RESAMPLES, files[RESAMPLES], made_by=made_by)
    for name, draws in draws_by_name(evaluated.scores).items():
        comparison.arrays(f"{folder.name}/{RESAMPLES}: the draws of {name}", written.get(name), draws)


def manifest_numbers(
    comparison: NumberComparison, manifest: EvaluationManifest, evaluated: Evaluated, *, file: str
) -> None:
    """Compare what a manifest says of the scores, and the nulls and the photos' own scores in it."""
    of_scores = {"best_steps": evaluated.best_steps, "absent": evaluated.absent}
    for name, now in of_scores.items():
        before = getattr(manifest, name)
        comparison.cells(file, f"{name}, ", before, now, tuple(before))
    if manifest.photo_draws is None:
        comparison.found.append(f"{file}: it does not say how the nulls were drawn")
        return
    again = photo_scores(evaluated.real, evaluated.specs, manifest.photo_draws)
    for name, written in (("nulls", manifest.nulls), ("real_scores", manifest.real_scores)):
        for key in dict.fromkeys((*written, *again[name])):
            before, now = (of.get(key) for of in (written, again[name]))
            cells = [{} if one is None else one.model_dump() for one in (before, now)]
            comparison.cells(file, f"{name}, {key}, ", *cells, tuple(cells[0]))


def _control_numbers(
    comparison: NumberComparison, manifest: EvaluationManifest, evaluated: Evaluated, folder: Path
) -> None:
    files = files_as_they_are(folder, manifest.files)
    sets = {name: read_image_set(folder, file, files, made_by="evaluate") for name, file in FILES.items()}
    again = control_scores(sets, evaluated.real, evaluated.specs)
    for name in dict.fromkeys((*manifest.controls, *again)):
        before = manifest.controls.get(name, {})
        comparison.cells(MANIFEST, f"{name}, ", before, again.get(name, {}), tuple(before))


def disagreement_message(done: Recomputed, *, made_by: str) -> str:
    """Return the disagreements as one message, the first of them in full."""
    more = len(done.disagreements) - MOST_SHOWN
    shown = [*done.disagreements[:MOST_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    lines = problems_message("The scores do not agree with what they were computed from", shown)
    return f"{lines}\nMake the scores anew: dvc repro --force {made_by}"


def evaluated_again(
    folder: Path,
    samples_folder: Path,
    manifest: EvaluationManifest,
    real: RealPhotos,
    *,
    aims: Mapping[str, float] | None,
    made_by: str,
) -> Evaluated:
    """Score the stored features in `folder` again, with the stored resamples; PipelineError when some are not there."""
    drawn = read_record(samples_folder / "manifest.json", SamplesManifest, made_by=made_by)
    samples = marked_unreadable(drawn, manifest.unreadable)
    files = files_as_they_are(folder, manifest.files)
    sets = {step: read_image_set(folder, step_name(step), files, made_by=made_by) for step in samples.steps}
    arrays, metadata = read_arrays(folder, RESAMPLES, files[RESAMPLES], made_by=made_by)
    if "weights" not in arrays or "prompts" not in metadata:
        raise PipelineError(
            f"{folder / RESAMPLES} holds no weights of resamples. Make it anew: dvc repro --force {made_by}"
        )
    prompts = tuple(json.loads(metadata["prompts"]))
    colours = {prompt.prompt_id: prompt.colour for prompt in samples.prompts}
    strata = strata_of([colours.get(prompt) for prompt in prompts])
    return evaluated_sets(
        samples,
        Measured(computed=0, reused=0),
        sets,
        real=real,
        specs=applicable_specs(manifest.extractors),
        resampling=Resampling(prompts=prompts, strata=strata, weights_RP=arrays["weights"]),
        aims=aims,
    )


def _means_of_table(written: Sequence[Row], evaluated: Evaluated) -> list[dict[str, Any]]:
    """Return per step the mean and interval of every column of per_image.csv that a score is the mean of."""
    rows = []
    for step, images in evaluated.sets.items():
        of_step = {(row["prompt_id"], row["seed_index"]): row for row in written if row["step"] == str(step)}
        row: dict[str, Any] = {"step": step}
        for key, spec in evaluated.specs.items():
            if not spec.image_column:
                continue
            rows_of_cells = (of_step.get((prompt, str(index)), {}) for prompt, index in images.cells)
            cells = [number_or_text(row_of_cell.get(spec.image_column)) for row_of_cell in rows_of_cells]
            values = np.array([value if isinstance(value, float) else np.nan for value in cells])
            try:
                row.update(tables.cells(key, mean_estimate(values, images.cells, spec, evaluated.resampling)))
            except TooFewImagesError:
                row[key] = None
        rows.append(row)
    return rows


def changed_files(folder: Path, files: Mapping[str, str], root: Path) -> Iterator[str]:
    """Yield a sentence for every file that is there and not the one of its manifest."""
    for name, sha256 in files.items():
        path = folder / name
        if path.is_file() and sha256_file(path) != sha256:
            yield f"{path.relative_to(root)}: changed since the manifest was written"


def files_as_they_are(folder: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Return file name -> hash as found: what was changed is said already, and its scores are still compared."""
    return {name: sha256_file(folder / name) if (folder / name).is_file() else sha for name, sha in files.items()}
