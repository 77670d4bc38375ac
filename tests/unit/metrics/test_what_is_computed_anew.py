"""One flipped byte anywhere changes the key, and an addition costs itself alone: what the counts of a stage say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from loupe.atomic_io import read_record, read_records, sha256_file, write_record, write_records
from loupe.metric_table import METRIC_SPECS
from loupe.metrics.image_set_files import read_image_set
from loupe.records import CaptionRecord, DatasetManifest, SampleRecord
from stages.evaluate import evaluate
from stages.reference import reference
from tests.unit.metrics.evaluation_project import Run
from tests.unit.metrics.small_run import toy_prompts, write_samples

PER_PICTURE = 3
"""Functions that look at a picture: pixels, classifier, CLIP."""
N_PICTURES, N_PROMPTS, N_PHOTOS = 12, 3, 36


class Counted:
    """A run whose stages say what they computed and what they reused."""

    def __init__(self, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
        self.run, self.capsys = run, capsys

    def stage(self, work: Callable) -> tuple[int, int]:
        self.capsys.readouterr()
        self.run.stage(work)
        found = re.search(r"computed=(\d+) reused=(\d+)", self.capsys.readouterr().out)
        assert found, "the stage says nothing of what it reused"
        return int(found[1]), int(found[2])


@pytest.fixture
def counted(evaluated: Run, capsys: pytest.CaptureFixture[str]) -> Counted:
    found = Counted(evaluated, capsys)
    assert found.stage(evaluate) == (0, PER_PICTURE * N_PICTURES + N_PROMPTS), "nothing has changed"
    return found


def as_raw_pixels(path: Path) -> str:
    """Rewrite a picture without compression, so that one byte of it is one channel of one pixel; return its hash."""
    with Image.open(path) as image:
        image.load()
    image.save(path, format="BMP")
    return sha256_file(path)


def flip_a_byte(path: Path, *, at: int) -> str:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x40
    path.write_bytes(bytes(content))
    return sha256_file(path)


def test_one_flipped_byte_of_a_picture_recomputes_that_picture_and_changes_its_score(counted: Counted) -> None:
    run = counted.run
    sample = next(s for s in run.samples().samples if s.step == 10)
    path = run.paths.samples / sample.file

    def with_hash(sha256: str) -> Callable[[SampleRecord], SampleRecord]:
        return lambda s: s.model_copy(update={"sha256": sha256}) if s.file == sample.file else s

    run.change_samples(with_hash(as_raw_pixels(path)))
    assert counted.stage(evaluate) == (PER_PICTURE, PER_PICTURE * (N_PICTURES - 1) + N_PROMPTS)
    before = {row["file"]: row for row in run.table("per_image.csv")}
    run.change_samples(with_hash(flip_a_byte(path, at=len(path.read_bytes()) // 2)))
    assert counted.stage(evaluate) == (PER_PICTURE, PER_PICTURE * (N_PICTURES - 1) + N_PROMPTS)
    after = {row["file"]: row for row in run.table("per_image.csv")}
    assert after[sample.file]["clip"] != before[sample.file]["clip"]
    others = [file for file in before if file != sample.file]
    assert [after[file]["clip"] for file in others] == [before[file]["clip"] for file in others]


def test_one_changed_letter_of_a_prompt_recomputes_that_prompt_and_changes_its_scores(counted: Counted) -> None:
    run = counted.run
    before, manifest = run.table("per_image.csv"), run.samples()
    first, *rest = manifest.prompts
    changed = first.model_copy(update={"text": first.text.replace("shoes", "shoer")})
    write_record(run.manifest_path, manifest.model_copy(update={"prompts": (changed, *rest)}))
    assert counted.stage(evaluate) == (1, PER_PICTURE * N_PICTURES + N_PROMPTS - 1)
    for was, now in zip(before, run.table("per_image.csv"), strict=True):
        assert (was["clip"] != now["clip"]) == (was["prompt_id"] == first.prompt_id)


def test_one_flipped_byte_of_an_extractor_recomputes_all_that_it_saw_and_nothing_else(counted: Counted) -> None:
    run = counted.run
    before = run.table("checkpoints.csv")[-1]
    weights = run.paths.demo / "classifier" / "model.safetensors"
    flip_a_byte(weights, at=len(weights.read_bytes()) - 2)  # the last weight is that of a colour
    n_photos_and_captions = PER_PICTURE * N_PHOTOS + distinct_captions(run)
    assert counted.stage(reference) == (N_PHOTOS, n_photos_and_captions - N_PHOTOS)
    assert counted.stage(evaluate) == (N_PICTURES, (PER_PICTURE - 1) * N_PICTURES + N_PROMPTS)
    after = run.table("checkpoints.csv")[-1]
    assert after["is_demo"] != before["is_demo"], "the classes' probabilities come from that weight"
    assert after["clip_demo"] == before["clip_demo"]
    assert run.evaluation().extractors[0].sha256 == sha256_file(weights)


def distinct_captions(run: Run) -> int:
    """Return the number of captions per split, added up: each split is measured by itself."""
    splits = (
        read_records(run.paths.dataset / split / "captions.jsonl", CaptionRecord, made_by="prepare")
        for split in ("train", "val")
    )
    return sum(len({record.caption for record in records}) for records in splits)


def test_one_flipped_byte_of_a_reference_photo_recomputes_that_photo_and_moves_the_distances(counted: Counted) -> None:
    run = counted.run
    listing = run.paths.dataset / "val" / "captions.jsonl"
    records = list(read_records(listing, CaptionRecord, made_by="prepare"))
    path = run.paths.dataset / records[0].file

    def measured_with(sha256: str) -> tuple[int, list[dict[str, str]]]:
        write_records(listing, [records[0].model_copy(update={"sha256": sha256}), *records[1:]])
        dataset = read_record(run.paths.dataset / "manifest.json", DatasetManifest, made_by="prepare")
        hashes = {**dataset.captions_sha256, "val": sha256_file(listing)}
        write_record(run.paths.dataset / "manifest.json", dataset.model_copy(update={"captions_sha256": hashes}))
        computed, _ = counted.stage(reference)
        counted.stage(evaluate)
        return computed, run.table("checkpoints.csv")

    computed, before = measured_with(as_raw_pixels(path))
    assert computed == PER_PICTURE
    computed, after = measured_with(flip_a_byte(path, at=len(path.read_bytes()) // 2))
    assert computed == PER_PICTURE
    for was, now in zip(before, after, strict=True):
        assert was["fd_demo"] != now["fd_demo"]
        assert was["cmmd_demo"] != now["cmmd_demo"]
        assert was["clip_demo"] == now["clip_demo"]


def test_one_more_prompt_costs_its_pictures_and_its_text(counted: Counted) -> None:
    write_samples(counted.run.paths.samples, steps=(0, 10), prompts=toy_prompts(N_PROMPTS + 1), seeds=2)
    new_pictures = 2 * 2
    assert counted.stage(evaluate) == (PER_PICTURE * new_pictures + 1, PER_PICTURE * N_PICTURES + N_PROMPTS)


def test_one_more_metric_costs_no_picture_and_leaves_the_others_alone(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = counted.run.table("checkpoints.csv")
    monkeypatch.setitem(METRIC_SPECS, "twice", replace(METRIC_SPECS["background_ok"], key="twice", criterion=None,
                                                      image_column="twice"))  # fmt: skip
    assert counted.stage(evaluate) == (0, PER_PICTURE * N_PICTURES + N_PROMPTS)
    after = counted.run.table("checkpoints.csv")
    assert [row["twice"] for row in after] == [row["background_ok"] for row in after]
    assert [{name: row[name] for name in before[0]} for row in after] == before


def test_features_of_a_few_checkpoints_alone_are_in_memory(evaluated: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read of a step can be freed before the last step is read, however many there are."""
    import weakref

    from loupe.metrics import evaluation
    from loupe.metrics.image_set import FEATURES, ImageSet

    write_samples(evaluated.paths.samples, steps=tuple(range(0, 90, 10)), prompts=toy_prompts(3), seeds=2)
    alive: list[weakref.ref] = []
    most = 0

    def watched(*arguments: object) -> ImageSet:
        nonlocal most
        images = read(*arguments)
        alive.append(weakref.ref(images.array(FEATURES)))
        most = max(most, sum(ref() is not None for ref in alive))
        return images

    read = evaluation.read_features
    monkeypatch.setattr(evaluation, "read_features", watched)
    evaluated.stage(evaluate)
    assert len(alive) >= 9
    assert most <= 2, "one step, and the one being read"
    stored = evaluated.evaluation().files
    assert len(read_image_set(evaluated.paths.evaluation, "step-000080", stored, made_by="evaluate")) == 6
