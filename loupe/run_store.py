"""The one reader of a run's results, for dashboard, service, command line and README table.

It tolerates absent, half-written and broken runs and never writes. It believes manifests only; while `generate` is at
work, and has none yet, the pictures that are already there are shown as such. What state the run is in: run_state.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from loupe.atomic_io import read_records
from loupe.evaluation_records import EvaluationManifest, Selection, TestLook
from loupe.looks import looks_at, looks_file, read_looks
from loupe.params import Params, load_params
from loupe.paths import ProjectPaths
from loupe.records import (
    BASE_STEP,
    CaptionRecord,
    CheckpointInfo,
    CheckpointsManifest,
    DatasetManifest,
    ExportManifest,
    PromptRecord,
    SamplesManifest,
    TrainRow,
)
from loupe.run_changes import run_fingerprint
from loupe.run_files import Cells, Problem, RunFiles
from loupe.run_samples import (
    SampleKey,
    SampleView,
    appearing_samples,
    files_by_sha256,
    only,
    pictures_in,
    recorded_samples,
    samples_by_prompt,
)
from loupe.run_scores import MetricColumn, StepScores, metric_columns, scores_by_step


class RunStore:
    """Read-only view of the run in one project folder."""

    def __init__(self, root: Path) -> None:
        self.paths = ProjectPaths(root.resolve())
        self.files = RunFiles(self.paths.root)
        self.shown: dict[str, Path] = {}
        """Pictures that were shown before a manifest of generate named them, by SHA-256."""

    # --- manifests: None when absent or broken; which of the two, problems() tells ----------------------------------

    def params(self) -> Params | None:
        """Return params.yaml, or None when it is absent or wrong."""
        path = self.paths.root / "params.yaml"
        return self.files.parsed(path, "Params", lambda: load_params(path))

    def dataset(self) -> DatasetManifest | None:
        """Return what `prepare` made."""
        return self.files.record(self.paths.dataset / "manifest.json", DatasetManifest, made_by="prepare")

    def checkpoints_manifest(self) -> CheckpointsManifest | None:
        """Return what `train` made."""
        return self.files.record(self.paths.checkpoints / "manifest.json", CheckpointsManifest, made_by="train")

    def samples_manifest(self) -> SamplesManifest | None:
        """Return what `generate` made."""
        return self.files.record(self.paths.samples / "manifest.json", SamplesManifest, made_by="generate")

    def evaluation(self) -> EvaluationManifest | None:
        """Return the provenance of the scores."""
        return self.files.record(self.paths.evaluation / "manifest.json", EvaluationManifest, made_by="evaluate")

    def selection(self) -> Selection | None:
        """Return the recommendation."""
        return self.files.record(self.paths.metrics / "selection.json", Selection, made_by="select")

    def confirmation(self) -> SamplesManifest | None:
        """Return the pictures on test prompts."""
        return self.files.record(self.paths.confirmation / "manifest.json", SamplesManifest, made_by="confirm")

    def final(self) -> dict[str, Any] | None:
        """Return metrics/final.json: the headline scores on the test split; of older runs, all scores."""
        return self.files.json_object(self.paths.metrics / "final.json", required=("step",), made_by="confirm")

    def final_scores(self) -> dict[str, Any]:
        """Return metrics/final.csv as `<score>_<column>` -> cell; {} where it is absent, as in older runs."""
        file, required = self.paths.metrics / "final.csv", ("score", "selected")
        rows = self.files.table(file, required=required, text=("score",), made_by="confirm") or ()
        cells = ((row["score"], column, value) for row in rows for column, value in row.items())
        return {f"{score}_{column}": value for score, column, value in cells if column != "score"}

    def looks(self) -> tuple[TestLook, ...]:
        """Return the looks at the test split that this folder's work store remembers, oldest first."""
        dataset, file = self.dataset(), looks_file(self.paths.work)
        looks = self.files.parsed(file, "TestLook", lambda: read_looks(file)) if file.is_file() else ()
        return looks_at(dataset.captions_sha256.get("test", ""), looks or ()) if dataset else ()

    def export(self) -> ExportManifest | None:
        """Return the files to take away."""
        return self.files.record(self.paths.export / "manifest.json", ExportManifest, made_by="export")

    # --- what the pages show -----------------------------------------------------------------------------------------

    def checkpoints(self) -> tuple[CheckpointInfo, ...]:
        """Return the adapters, ascending by step, without the base model."""
        manifest = self.checkpoints_manifest()
        return manifest.checkpoints if manifest else ()

    def steps(self) -> tuple[int, ...]:
        """Return the steps to show, ascending, 0 (the base model) first; () before there is anything to show."""
        samples = self.samples_manifest()
        if samples:
            return samples.steps
        if self.checkpoints():
            return (BASE_STEP, *(checkpoint.step for checkpoint in self.checkpoints()))
        return tuple(row.step for row in self.scores())

    def scores(self) -> tuple[StepScores, ...]:
        """Return metrics/checkpoints.csv, ascending by step, of the metrics that loupe/metric_specs.py knows."""
        rows = self.files.table(self.paths.metrics / "checkpoints.csv", required=("step",), made_by="evaluate") or ()
        return self.files.derived("scores", scores_by_step, rows)

    def metrics(self) -> tuple[MetricColumn, ...]:
        """Return the metrics that this run has scores of, in the order of loupe/metric_specs.py."""
        return self.files.derived("metrics", metric_columns, self.scores(), self.evaluation())

    def per_image(self) -> dict[SampleKey, Cells]:
        """Return metrics/per_image.csv by (prompt id, seed index, step): numbers, and text in invalid_reason."""
        rows = self.files.table(
            self.paths.metrics / "per_image.csv",
            required=("prompt_id", "seed_index", "step"),
            text=("prompt_id", "file", "sha256", "invalid_reason", "colour", "nearest_train"),
            made_by="evaluate",
        )
        return self.files.derived("per image", _by_cell, rows)

    def train_curve(self) -> tuple[TrainRow, ...]:
        """Return metrics/train.csv, which also grows while `train` is at work."""
        fields = tuple(TrainRow.model_fields)
        rows = self.files.table(self.paths.metrics / "train.csv", required=fields, made_by="train") or ()
        return self.files.derived("train curve", _train_rows, rows)

    def prompts(self) -> tuple[PromptRecord, ...]:
        """Return the prompts in the order of the run; before `generate` is done, those known so far."""
        manifest = self.samples_manifest()
        if manifest:
            return manifest.prompts
        return self._prompts_so_far(pictures_in(self.files, self.paths.samples))

    def samples(
        self,
        *,
        prompt_ids: Collection[str] | None = None,
        seed_indices: Collection[int] | None = None,
        steps: Collection[int] | None = None,
    ) -> Iterator[SampleView]:
        """Yield the cells of the grid in the order prompt, seed index, step; each filter that is None lets all pass.

        Each picture's bytes are checked against the manifest, so ask only for those that will be seen.
        """
        wanted = only(prompt_ids, seed_indices, steps)
        manifest = self.samples_manifest()
        if manifest:
            by_prompt = self.files.derived("by prompt", samples_by_prompt, manifest)
            chosen = (
                record for key, own in by_prompt.items() if prompt_ids is None or key in prompt_ids for record in own
            )
            yield from recorded_samples(self.files, self.paths.samples, chosen, wanted)
            return
        pictures = pictures_in(self.files, self.paths.samples)
        params = self.params()
        for sample in appearing_samples(
            self.files,
            pictures,
            prompts=[p for p in self._prompts_so_far(pictures) if prompt_ids is None or p.prompt_id in prompt_ids],
            n_seeds=params.generate.seeds_per_prompt if params else 0,
            steps=self.steps(),
            wanted=wanted,
        ):
            if sample.sha256:
                self.shown[sample.sha256] = pictures[sample.key]
            yield sample

    def sample_file(self, sha256: str) -> Path | None:
        """Return the file of a picture by the SHA-256 that a manifest gives it, or that it had when it was shown.

        The name never comes from the caller. The bytes may have changed since: compare them before they are believed.
        """
        for folder, read in ((self.paths.samples, self.samples_manifest), (self.paths.confirmation, self.confirmation)):
            index = self.files.derived(f"{folder.name} by hash", partial(files_by_sha256, folder), read())
            if sha256 in index:
                return index[sha256]
        return self.shown.get(sha256)

    def problems(self) -> tuple[Problem, ...]:
        """Read everything but the pictures and return what cannot be believed."""
        for read in (
            self.params, self.dataset, self.checkpoints_manifest, self.samples_manifest, self.evaluation, self.scores,
            self.per_image, self.train_curve, self.selection, self.confirmation, self.final, self.export,
        ):  # fmt: skip
            read()
        return self.files.problems()

    def fingerprint(self) -> str:
        """Return a value that changes when anything the pages show changes; cheap enough to ask every second."""
        return run_fingerprint(self.paths)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _prompts_so_far(self, pictures: Collection[SampleKey]) -> tuple[PromptRecord, ...]:
        params = self.params()
        fixed = params.generate.prompts if params else {}
        known = [PromptRecord(prompt_id=key, text=text, colour=None) for key, text in fixed.items()]
        found = sorted({prompt for prompt, _, _ in pictures} - fixed.keys())
        return (*known, *(self._caption_prompt(prompt_id) for prompt_id in found))

    def _caption_prompt(self, prompt_id: str) -> PromptRecord:
        split, _, image_id = prompt_id.partition("_")
        path = self.paths.dataset / split / "captions.jsonl"
        records = self.files.parsed(path, "captions", lambda: read_records(path, CaptionRecord, made_by="prepare"))
        texts = self.files.derived(f"captions of {split}", _captions, records)
        return PromptRecord(prompt_id=prompt_id, text=texts.get(image_id, prompt_id), colour=None)


def _captions(records: list[CaptionRecord] | None) -> dict[str, str]:
    return {record.image_id: record.caption for record in records or ()}


def _train_rows(rows: tuple[Cells, ...]) -> tuple[TrainRow, ...]:
    return tuple(TrainRow.model_validate({name: row[name] for name in TrainRow.model_fields}) for row in rows)


def _by_cell(rows: tuple[Cells, ...] | None) -> dict[SampleKey, Cells]:
    return {(str(r["prompt_id"]), int(r["seed_index"]), int(r["step"])): r for r in rows or ()}
