"""Readers of a run that is being written: they raise nothing at whatever moment, and in the end they are right."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from loupe.run_state import run_state
from loupe.run_store import RunStore
from loupe.run_training import previews, train_telemetry, validation_curve
from tests.run_fixture import Shape, complete_run, running_run, write_samples
from tests.run_shape import paint_shoe

SHAPE = Shape(steps=(75, 150), seeds=1, size_px=16, captions=1)
ENOUGH_READINGS, LIMIT_S = 25, 180.0
PIECE_S = 0.8
"""A file stays in pieces longer than one reading of all files, or it would be mended before it is blamed."""


@contextmanager
def written_by(write: Callable[[], None]) -> Iterator[None]:
    """Call `write` again and again in another thread; its errors end the test."""
    stop, errors = Event(), []

    def work() -> None:
        try:
            while not stop.is_set():
                write()
        except Exception as error:
            errors.append(error)

    writer = Thread(target=work)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()
    assert not errors


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


def read_often(store: RunStore, is_enough: Callable[[], bool]) -> None:
    end, readings = time.monotonic() + LIMIT_S, 0
    while time.monotonic() < end and (readings < ENOUGH_READINGS or not is_enough()):
        read_all(store)
        readings += 1
    assert readings >= ENOUGH_READINGS
    assert is_enough()


def test_files_that_are_caught_half_written(tmp_path: Path) -> None:
    """No stage of ours writes so, but a copy or a sync into the folder does: in pieces, and in no order."""
    store = RunStore(complete_run(tmp_path, SHAPE))
    whole = {
        file: file.read_bytes()
        for pattern in ("data/*/manifest.json", "metrics/*", "data/samples/*/*.png", "params.yaml", "dvc.lock")
        for file in sorted(tmp_path.glob(pattern))
    }
    caught: set[str] = set()

    def in_pieces(pause_s: float = PIECE_S) -> None:
        for file, content in whole.items():
            with file.open("wb") as target:
                for start in range(0, len(content), len(content) // 3 + 1):
                    target.write(content[start : start + len(content) // 3 + 1])
                    target.flush()
                    time.sleep(0.0002)

    def is_enough() -> bool:
        caught.update(problem.file for problem in store.files.problems())
        return len(caught) > 2

    with written_by(in_pieces):
        read_often(store, is_enough)
    in_pieces(0)
    assert store.problems() == ()
    assert {sample.status for sample in store.samples()} == {"whole"}
    assert run_state(store).kind in ("complete", "stale"), "stale: dvc's own record is older than the pieces"


def test_a_folder_that_dvc_removes_and_generate_fills_again(tmp_path: Path) -> None:
    store = RunStore(complete_run(tmp_path, SHAPE))
    seen: set[str] = set()

    def again() -> None:
        shutil.rmtree(store.paths.samples)
        time.sleep(0.002)
        write_samples(tmp_path, SHAPE, paint_shoe)

    def is_enough() -> bool:
        seen.update(sample.status for sample in store.samples())
        return {"whole", "waiting"} <= seen

    with written_by(again):
        read_often(store, is_enough)
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
