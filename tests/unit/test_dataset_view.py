"""Search, attributes and counts over examples that a reader can check by eye."""

from __future__ import annotations

from pathlib import Path

import pytest

from loupe.atomic_io import write_records
from loupe.dataset_view import NO_VALUE, attributes_of, counts, examples, matching
from loupe.records import CaptionRecord
from loupe.run_store import RunStore


def example(image_id: str, split: str = "train", file: str | None = None, **attributes: str) -> CaptionRecord:
    return CaptionRecord(
        image_id=image_id, split=split, file=file or f"{split}/images/{image_id}.png",
        caption=f"A photo of {attributes.get('colour', 'some')} shoes", sha256=image_id.rjust(64, "0"),
        source_width_px=8, source_height_px=8, attributes={"article_type": "Shoes", "family": image_id, **attributes},
    )  # fmt: skip


RED, BLUE, PLAIN = example("1", colour="Red"), example("2", "val", colour="Navy Blue", gender="Men"), example("3")
ALL = (RED, BLUE, PLAIN)


def test_every_word_must_be_found_in_id_caption_or_attributes() -> None:
    assert matching(ALL, query="NAVY photo") == [BLUE]
    assert matching(ALL, query="navy red") == []
    assert matching(ALL, query="3") == [PLAIN]
    assert matching(ALL) == [RED, BLUE, PLAIN]


def test_split_and_values_narrow_and_a_missing_value_can_be_asked_for() -> None:
    assert matching(ALL, splits=["val"]) == [BLUE]
    assert matching(ALL, attribute="colour", values=["Red", NO_VALUE]) == [RED, PLAIN]
    assert matching(ALL, attribute="colour", values=[]) == [RED, BLUE, PLAIN]


def test_attributes_are_those_that_tell_examples_apart() -> None:
    assert attributes_of(ALL) == ["colour", "gender"]
    assert attributes_of([]) == []


def test_counts_are_by_split_and_only_of_splits_that_are_there() -> None:
    assert counts(ALL, "colour") == {"train": {"Red": 1, NO_VALUE: 1}, "val": {"Navy Blue": 1}}


def test_pictures_are_found_by_hash_and_never_outside_the_dataset(tmp_path: Path) -> None:
    outside = example("4", file="../../params.yaml")
    write_records(tmp_path / "data" / "dataset" / "train" / "captions.jsonl", [RED, outside])
    store = RunStore(tmp_path)
    assert examples(store) == (RED,)
    assert store.sample_file(RED.sha256) == tmp_path / "data" / "dataset" / "train" / "images" / "1.png"
    assert store.sample_file(outside.sha256) is None


@pytest.mark.parametrize("content", ["", "{broken"])
def test_a_split_that_cannot_be_read_leaves_the_others(tmp_path: Path, content: str) -> None:
    write_records(tmp_path / "data" / "dataset" / "train" / "captions.jsonl", [RED])
    broken = tmp_path / "data" / "dataset" / "val" / "captions.jsonl"
    broken.parent.mkdir(parents=True)
    broken.write_text(content)
    store = RunStore(tmp_path)
    assert examples(store) == (RED,)
    assert len(store.files.problems()) == bool(content)
