"""Readers of a run that is being written: they raise nothing at whatever moment, and in the end they are right."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

from loupe.run_state import run_state
from loupe.run_store import RunStore
from loupe.run_training import previews, train_telemetry, validation_curve
from tests.busy_writer import written_by
from tests.run_fixture import Shape, complete_run, running_run, write_samples
from tests.run_shape import paint_shoe

SHAPE = Shape(steps=(75, 150), seeds=1, size_px=16, captions=1)
ENOUGH_READINGS, LIMIT_S = 25, 180.0
WHOLE_READINGS = 2
"""The first may have passed a file before it changed; the second meets it, and is asked about it before it counts."""


def read_all(store: RunStore) -> None:
    store.fingerprint()
    run_state(store)
    list(store.samples())
    store.metrics()
    list(previews(store))
    validation_curve(store)
    train_telemetry(store)
    for sha256 in list(store.shown):
        store.sample_file(sha256)


class Reader:
    """Reads all files often, and counts how often."""

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self.readings = 0

    def read_until(self, is_enough: Callable[[], bool]) -> None:
        end, enough = time.monotonic() + LIMIT_S, False
        while time.monotonic() < end and (self.readings < ENOUGH_READINGS or not enough):
            read_all(self.store)
            enough = is_enough()
            self.readings += 1
        assert self.readings >= ENOUGH_READINGS
        assert enough


def test_files_that_are_caught_half_written(tmp_path: Path) -> None:
    """No stage of ours writes so, but a copy or a sync into the folder does: in pieces, and in no order."""
    store = RunStore(complete_run(tmp_path, SHAPE))
    whole = {
        file: file.read_bytes()
        for pattern in ("data/*/manifest.json", "metrics/*", "data/samples/*/*.png", "params.yaml", "dvc.lock")
        for file in sorted(tmp_path.glob(pattern))
    }
    caught: set[str] = set()
    reader = Reader(store)

    def is_enough() -> bool:
        caught.update(problem.file for problem in store.files.problems())
        return len(caught) > 2

    def in_pieces(stop: Event) -> None:
        """The first files stay in pieces until they have been read, so that some are surely caught."""
        for file, content in whole.items():
            third = len(content) // 3 + 1
            with file.open("wb") as target:
                for start in range(0, len(content), third):
                    target.write(content[start : start + third])
                    target.flush()
                    seen_by = reader.readings + WHOLE_READINGS
                    while start == 0 and len(caught) <= 2 and reader.readings < seen_by and not stop.is_set():
                        time.sleep(0.001)
                    time.sleep(0.0002)

    with written_by(in_pieces):
        reader.read_until(is_enough)
    for file, content in whole.items():
        file.write_bytes(content)
    assert store.problems() == ()
    assert {sample.status for sample in store.samples()} == {"whole"}
    assert run_state(store).kind in ("complete", "stale"), "stale: dvc's own record is older than the pieces"


def test_a_folder_that_dvc_removes_and_generate_fills_again(tmp_path: Path) -> None:
    store = RunStore(complete_run(tmp_path, SHAPE))
    seen: set[str] = set()

    def again(_: Event) -> None:
        shutil.rmtree(store.paths.samples)
        time.sleep(0.002)
        write_samples(tmp_path, SHAPE, paint_shoe)

    def is_enough() -> bool:
        seen.update(sample.status for sample in store.samples())
        return {"whole", "waiting"} <= seen

    with written_by(again):
        Reader(store).read_until(is_enough)
    assert store.problems() == ()
    assert [sample.status for sample in store.samples()] == ["whole"] * 15


def test_every_picture_that_appears_is_seen_without_a_manifest(tmp_path: Path) -> None:
    """Faster than the clock of the file system ticks, so that a folder may change without a sign."""
    store = RunStore(running_run(tmp_path, SHAPE, drawn_steps=(0,)))
    content = next(store.paths.samples.rglob("*.png")).read_bytes()
    assert sum(sample.status == "whole" for sample in store.samples()) == 5
    for number, folder in enumerate(sorted(path for path in store.paths.samples.iterdir() if path.is_dir()), start=1):
        (folder / "000075.png").write_bytes(content)
        assert sum(sample.status == "whole" for sample in store.samples()) == 5 + number
