"""Previews are drawn ahead once, for large pictures only, never while a reviewer waits, and past broken files."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from dashboard import previews_ahead
from dashboard.pictures import LAST_REQUEST, draw_preview, kept_preview
from dashboard.previews_ahead import draw_ahead
from loupe.run_store import RunStore
from tests.run_fixture import Shape, complete_run

LARGE = Shape(steps=(75,), seeds=1, size_px=300, captions=0)


def kept(root: Path) -> list[Path]:
    return list((root / ".work" / "thumbnails").rglob("*.webp"))


def test_every_preview_is_drawn_once_and_found_by_the_page(tmp_path: Path) -> None:
    store = RunStore(complete_run(tmp_path, LARGE))
    manifest = store.samples_manifest()
    draw_ahead(store, manifest, quiet_s=0)
    times = {file: file.stat().st_mtime_ns for file in kept(tmp_path)}
    assert len(times) == len({sample.sha256 for sample in manifest.samples})
    first = manifest.samples[0].sha256
    assert kept_preview(store, first) == draw_preview(store, first)
    draw_ahead(store, manifest, quiet_s=0)
    assert {file: file.stat().st_mtime_ns for file in kept(tmp_path)} == times


def test_small_pictures_need_no_preview(tmp_path: Path) -> None:
    store = RunStore(complete_run(tmp_path, Shape(steps=(75,), seeds=1, size_px=64)))
    draw_ahead(store, store.samples_manifest(), quiet_s=0)
    assert kept(tmp_path) == []


def test_a_half_picture_stops_nothing(tmp_path: Path) -> None:
    store = RunStore(complete_run(tmp_path, LARGE))
    manifest = store.samples_manifest()
    half = store.paths.samples / manifest.samples[0].file
    half.write_bytes(half.read_bytes()[:100])
    draw_ahead(store, manifest, quiet_s=0)
    assert len(kept(tmp_path)) == len({sample.sha256 for sample in manifest.samples}) - 1


def test_it_rests_while_a_reviewer_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(complete_run(tmp_path, LARGE))
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        assert kept(tmp_path) == [], "nothing is drawn before it is quiet"
        if len(waits) == 3:
            monkeypatch.setattr(LAST_REQUEST, "ago_s", lambda: 60.0)

    monkeypatch.setattr("dashboard.previews_ahead.time.sleep", sleep)
    LAST_REQUEST.note()
    draw_ahead(store, store.samples_manifest(), quiet_s=30.0)
    assert len(waits) == 3
    assert kept(tmp_path)


def test_a_trouble_that_stays_is_told_once_and_again_when_it_comes_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Ended(BaseException):
        """Ends the loop, which has no end of its own."""

    troubles = iter(["the disk is full", "the disk is full", "another one", None, "another one", Ended()])

    def store() -> SimpleNamespace:
        trouble = next(troubles)
        if isinstance(trouble, Ended):
            raise trouble
        if trouble:
            raise OSError(trouble)
        return SimpleNamespace(samples_manifest=lambda: None)

    monkeypatch.setattr(previews_ahead, "current_store", store)
    monkeypatch.setattr(previews_ahead.time, "sleep", lambda seconds: None)
    with pytest.raises(Ended):
        previews_ahead._draw_forever()
    told = re.findall(r"OSError: (.*)", capsys.readouterr().err)
    assert told == ["the disk is full", "another one", "another one"]
