"""A samples manifest and a dataset split as rows to measure: what is a picture, and which belong to which step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from loupe.atomic_io import read_record, read_records, sha256_file
from loupe.errors import PipelineError
from loupe.metrics.image_set import ImageSet
from loupe.metrics.images import (
    ImageFile,
    UnreadableImageError,
    check_image_files,
    check_sizes,
    read_pixels,
    why_not_as_recorded,
)
from loupe.metrics.measure import ImageRow
from loupe.records import CaptionRecord, DatasetManifest, SampleRecord, SamplesManifest, Split

UNREADABLE = "unreadable: "
"""Begins the reason of a picture that was drawn well, as far as its manifest knows, and cannot be looked at."""
MOST_REASONS = 3
"""Why pictures are invalid, told where none is valid."""


def split_captions(dataset: DatasetManifest, folder: Path, split: Split) -> list[CaptionRecord]:
    """Return the captions of a split; PipelineError when they are not those that the dataset's manifest names."""
    path = folder / split / "captions.jsonl"
    records = read_records(path, CaptionRecord, made_by="prepare")
    if sha256_file(path) != dataset.captions_sha256.get(split):
        raise PipelineError(f"{path} does not match the dataset's manifest. Make it anew: dvc repro --force prepare")
    return records


def photo_rows(records: Iterable[CaptionRecord], dataset_folder: Path) -> list[ImageRow]:
    """Return the photos of a split as rows, checked against their hashes and the dataset's resolution."""
    rows = [
        ImageRow(
            cell=(record.image_id, 0),
            file=ImageFile(dataset_folder / record.file, record.sha256),
            text=record.caption,
            colour=record.attributes.get("colour"),
        )
        for record in records
    ]
    files = [row.file for row in rows]
    check_image_files(files, where="prepared photos", made_by="prepare")
    side_px = read_record(dataset_folder / "manifest.json", DatasetManifest, made_by="prepare").resolution_px
    check_sizes(files, (side_px, side_px), where="prepared photos", made_by="prepare")
    return rows


def is_valid(sample: SampleRecord) -> bool:
    """Whether there is a picture to measure: on disk, and neither black, flat, of wrong size nor not finite."""
    return sample.file is not None and sample.sha256 is not None and sample.invalid_reason is None


def checked_samples(
    manifest: SamplesManifest, folder: Path, *, decoded_before: Callable[[Sequence[str]], Container[str]], made_by: str
) -> SamplesManifest:
    """Return the manifest with an `invalid_reason` for every picture that cannot be looked at.

    It is not there, not the one of the manifest byte for byte, not decodable, not RGB or of another size.
    `decoded_before` returns those hashes whose pictures need not be opened again; `made_by` names the stage that can
    make pictures anew.
    """
    files = {i: ImageFile(folder / str(s.file), str(s.sha256)) for i, s in enumerate(manifest.samples) if is_valid(s)}
    others = {i: f"{why}, and dvc repro --force {made_by} makes it anew" for i, why in _not_as_recorded(files).items()}
    files = {i: file for i, file in files.items() if i not in others}
    known = decoded_before([file.sha256 for file in files.values()])
    size_px = (manifest.height_px, manifest.width_px)
    unread = {i: _why_unreadable(file, size_px) for i, file in files.items() if file.sha256 not in known}
    reasons = {i: f"{UNREADABLE}{why}" for i, why in (others | unread).items() if why}
    return marked_unreadable(manifest, {str(manifest.samples[i].file): reason for i, reason in reasons.items()})


def marked_unreadable(manifest: SamplesManifest, reasons: Mapping[str, str]) -> SamplesManifest:
    """Return the manifest with these files' reasons as `invalid_reason`."""
    samples = tuple(
        sample.model_copy(update={"invalid_reason": reasons[sample.file]}) if sample.file in reasons else sample
        for sample in manifest.samples
    )
    return manifest.model_copy(update={"samples": samples})


def unreadable_files(manifest: SamplesManifest) -> dict[str, str]:
    """Return file -> reason of the pictures that `checked_samples` marked."""
    return {
        str(sample.file): str(sample.invalid_reason)
        for sample in manifest.samples
        if sample.file is not None and str(sample.invalid_reason).startswith(UNREADABLE)
    }


def sample_rows(manifest: SamplesManifest, folder: Path, *, made_by: str) -> dict[int, list[ImageRow]]:
    """Return step -> its valid samples as rows, in the manifest's order; PipelineError when there is none at all."""
    prompts = {prompt.prompt_id: prompt for prompt in manifest.prompts}
    rows: dict[int, list[ImageRow]] = {step: [] for step in manifest.steps}
    for sample in manifest.samples:
        if is_valid(sample):
            prompt = prompts[sample.prompt_id]
            file = ImageFile(folder / str(sample.file), str(sample.sha256))
            cell = (sample.prompt_id, sample.seed_index)
            rows[sample.step].append(ImageRow(cell=cell, file=file, text=prompt.text, colour=prompt.colour))
    if not any(rows.values()):
        reasons = Counter(str(sample.invalid_reason).partition(" (sha256")[0] for sample in manifest.samples)
        found = "\n".join(f"  - {count} x {reason}" for reason, count in reasons.most_common(MOST_REASONS))
        raise PipelineError(
            f"None of the {len(manifest.samples)} pictures in {folder} is valid, so nothing can be scored:\n{found}\n"
            "Where files are missing or changed, make them anew; of black, flat or not finite pictures look at the "
            f"training loss and lower train.learning_rate. Redo: dvc repro --force {made_by}"
        )
    return rows


class StepSets(Mapping[int, ImageSet]):
    """Step -> its images, read when they are asked for; the latest ones alone stay in memory."""

    def __init__(self, steps: Sequence[int], read: Callable[[int], ImageSet]) -> None:
        self._steps, self._read = tuple(steps), lru_cache(maxsize=1)(read)

    def __getitem__(self, step: int) -> ImageSet:
        if step not in self._steps:
            raise KeyError(step)
        return self._read(step)

    def __iter__(self) -> Iterator[int]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)


def _not_as_recorded(files: Mapping[int, ImageFile]) -> dict[int, str]:
    return {i: why for i, file in files.items() if (why := why_not_as_recorded(file))}


def _why_unreadable(file: ImageFile, size_px: tuple[int, int]) -> str | None:
    try:
        found_px = read_pixels(file).shape[:2]
    except UnreadableImageError as error:
        return error.reason
    if found_px != size_px:
        return f"is {found_px[1]} x {found_px[0]} px, not {size_px[1]} x {size_px[0]}"
    return None
