"""The Data page: search, distributions and findings with their pictures."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from loupe.atomic_io import read_record, write_bytes, write_record, write_records
from loupe.records import CaptionRecord, DatasetManifest, Finding, Rejection
from loupe.run_files import RunFiles
from tests.apps.page_driver import html_of, open_page
from tests.run_fixture import NASTY, Shape, complete_run

SHAPE = Shape(steps=(75,), seeds=1, size_px=16, captions=0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    complete_run(tmp_path, SHAPE)
    folder = tmp_path / "data" / "dataset"
    for split, colours in (("train", ["Red", "Blue", "Blue"]), ("val", ["Red"])):
        records = [
            CaptionRecord(
                image_id=f"{split}{place}", split=split, file=f"{split}/images/{split}{place}.png",
                caption=NASTY if split == "val" else f"{colour} shoes",
                sha256=sha256(f"{split}{place}".encode()).hexdigest(),
                source_width_px=9, source_height_px=9, attributes={"colour": colour},
            )
            for place, colour in enumerate(colours)
        ]  # fmt: skip
        write_records(folder / split / "captions.jsonl", records)
        for record in records:
            write_bytes(folder / record.file, record.image_id.encode())
    write_bytes(folder / "test" / "captions.jsonl", b"{broken\n")
    manifest = read_record(folder / "manifest.json", DatasetManifest, made_by="prepare")
    near = Finding(kind="near-duplicate", image_ids=("train0", "train1"), detail="hashes differ in 2 of 64 bits")
    across = Finding(kind="near-duplicate across splits", image_ids=("train0", "val0"), detail="differ in 3")
    rejected = Rejection(image_id="77", reason="truncated", detail="only half of <it>")
    write_record(
        folder / "manifest.json", manifest.model_copy(update={"findings": (across, near), "rejected": (rejected,)})
    )
    return tmp_path


def test_search_narrows_by_word_split_and_value(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    assert html_of(open_page(monkeypatch, root, "data")).count('class="lp-img') == 4
    for query, expected in (
        ({"q": "blue shoes"}, 2), ({"split": ["val"]}, 1), ({"attribute": "colour", "value": ["Red"]}, 2),
        ({"split": ["train"], "attribute": "colour", "value": ["Red", "junk"]}, 1), ({"attribute": "junk"}, 4),
    ):  # fmt: skip
        assert html_of(open_page(monkeypatch, root, "data", **query)).count('class="lp-img') == expected, query
    assert "No example passes these filters" in html_of(open_page(monkeypatch, root, "data", q="zebra"))


def test_test_photos_are_shown_and_opened_only_when_asked_for(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    folder = root / "data" / "dataset"
    record = CaptionRecord(
        image_id="test0", split="test", file="test/images/test0.png", caption="Red shoes",
        sha256=sha256(b"test0").hexdigest(), source_width_px=9, source_height_px=9, attributes={"colour": "Red"},
    )  # fmt: skip
    write_records(folder / "test" / "captions.jsonl", [record])
    write_bytes(folder / record.file, b"test0")
    opened: list[str] = []
    hashed = RunFiles.sha256
    monkeypatch.setattr(RunFiles, "sha256", lambda files, path: opened.append(path.name) or hashed(files, path))

    for query in ({}, {"q": "red"}, {"split": ["val"]}):
        html = html_of(open_page(monkeypatch, root, "data", **query))
        assert "test0" not in html, query
        assert ("only when you pick that split" in html) == ("split" not in query)
    manifest = read_record(folder / "manifest.json", DatasetManifest, made_by="prepare")
    near = Finding(kind="near-duplicate across splits", image_ids=("train0", "test0"), detail="differ in 3")
    write_record(folder / "manifest.json", manifest.model_copy(update={"findings": (near,)}))
    html = html_of(open_page(monkeypatch, root, "data", show="Findings"))
    assert "A test photo. To look at it, pick the split test" in html
    assert html.count('class="lp-img') == 1
    assert "train0.png" in opened
    assert "test0.png" not in opened
    html = html_of(open_page(monkeypatch, root, "data", split=["test"]))
    assert "test0" in html
    assert html.count('class="lp-img') == 1
    assert "test0.png" in opened


def test_a_caption_shows_literally(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    html = html_of(open_page(monkeypatch, root, "data"))
    assert NASTY not in html
    assert "<script" not in html


def test_findings_stand_beside_their_pictures(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    html = html_of(open_page(monkeypatch, root, "data", show="Findings"))
    assert html.count('class="lp-finding"') == 2
    assert html.count('class="lp-img') == 4
    assert "<td>only half of &lt;it&gt;</td>" in html
    one = html_of(open_page(monkeypatch, root, "data", show="Findings", kind=["near-duplicate (1)"]))
    assert one.count('class="lp-finding"') == 1


def test_a_photo_that_is_gone_or_changed_is_a_tile_with_the_mend(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    (root / "data" / "dataset" / "train" / "images" / "train0.png").unlink()
    (root / "data" / "dataset" / "val" / "images" / "val0.png").write_bytes(b"")
    for show, count in (("Examples", 4), ("Findings", 4)):
        html = html_of(open_page(monkeypatch, root, "data", show=show))
        assert "train/images/train0.png is not there. Bring it back: dvc checkout --force data/dataset" in html
        assert "val/images/val0.png is not what was prepared." in html
        assert html.count('class="lp-img') + html.count('class="lp-tile') == count


def test_distributions_have_a_chart_per_attribute(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    assert len(open_page(monkeypatch, root, "data", show="Distributions").get("vega_lite_chart")) == 1


def test_without_a_dataset_the_next_command_is_named(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    assert "<code>dvc repro prepare</code>" in html_of(open_page(monkeypatch, runs["absent"], "data"))
