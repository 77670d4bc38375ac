"""A samples manifest and a dataset split as rows to measure, and the measured rows as one image set per checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from loupe.errors import PipelineError
from loupe.metrics.image_set import ImageSet
from loupe.metrics.images import ImageFile, check_image_files
from loupe.metrics.measure import ImageRow, Measured
from loupe.records import CaptionRecord, SampleRecord, SamplesManifest


def photo_rows(records: Iterable[CaptionRecord], dataset_folder: Path) -> list[ImageRow]:
    """Return the photos of a split as rows, checked against their hashes."""
    rows = [
        ImageRow(
            cell=(record.image_id, 0),
            file=ImageFile(dataset_folder / record.file, record.sha256),
            text=record.caption,
            colour=record.attributes.get("colour"),
        )
        for record in records
    ]
    check_image_files([row.file for row in rows], where="prepared photos", made_by="prepare")
    return rows


def is_valid(sample: SampleRecord) -> bool:
    """Whether there is a picture to measure: on disk, and neither black, flat, of wrong size nor not finite."""
    return sample.file is not None and sample.sha256 is not None and sample.invalid_reason is None


def sample_rows(manifest: SamplesManifest, folder: Path, *, made_by: str) -> list[ImageRow]:
    """Return the valid samples as rows in the manifest's order, checked against their hashes."""
    prompts = {prompt.prompt_id: prompt for prompt in manifest.prompts}
    rows = [
        ImageRow(
            cell=(sample.prompt_id, sample.seed_index),
            file=ImageFile(folder / str(sample.file), str(sample.sha256)),
            text=prompts[sample.prompt_id].text,
            colour=prompts[sample.prompt_id].colour,
        )
        for sample in manifest.samples
        if is_valid(sample)
    ]
    if not rows:
        raise PipelineError(
            f"None of the {len(manifest.samples)} pictures in {folder} is valid (black, flat or not finite), so "
            f"nothing can be scored. Look at the training loss, lower train.learning_rate, or redo: dvc repro {made_by}"
        )
    check_image_files([row.file for row in rows], where=str(folder), made_by=made_by)
    return rows


def sets_by_step(manifest: SamplesManifest, measured: Measured) -> dict[int, ImageSet]:
    """Split measured samples (of `sample_rows`) into one set per step; it is empty where no picture is valid."""
    steps = [sample.step for sample in manifest.samples if is_valid(sample)]
    return {
        step: measured.images.rows([row for row, of_step in enumerate(steps) if of_step == step])
        for step in manifest.steps
    }
