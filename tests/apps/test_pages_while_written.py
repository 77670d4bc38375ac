"""Pages that are opened while the run is exchanged for another one: each renders, whatever moment it catches."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import Event

import pytest

from loupe.atomic_io import write_bytes
from tests.apps.page_driver import open_page
from tests.busy_writer import written_by
from tests.run_fixture import Shape, complete_run

SMALL = Shape(steps=(75, 150), seeds=1, size_px=16, captions=0)
LARGER = Shape(steps=(100, 200, 300), seeds=2, size_px=16, captions=2)
VIEWS = ("overview", "compare", "vote", "training", "data", "report")


def exchange(root: Path, runs: list[dict[Path, bytes]], *, pause_s: float, stop: Event) -> None:
    """Write one run's files over the other's, one by one."""
    for files in runs:
        for file, content in files.items():
            write_bytes(root / file, content)
            if stop.wait(pause_s):
                return


def files_of(root: Path) -> dict[Path, bytes]:
    kept = [file for file in sorted(root.rglob("*")) if file.suffix in (".json", ".csv", ".jsonl", ".yaml", ".png")]
    return {file.relative_to(root): file.read_bytes() for file in kept}


@pytest.mark.parametrize("view", VIEWS)
def test_a_page_renders_while_its_run_is_exchanged(view: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small, larger = (files_of(complete_run(tmp_path / name, s)) for name, s in (("a", SMALL), ("b", LARGER)))
    root = tmp_path / "run"
    shutil.copytree(tmp_path / "a", root)
    app = open_page(monkeypatch, root)
    app.switch_page(f"views/{view}.py")
    with written_by(lambda stop: exchange(root, [larger, small], pause_s=0.001, stop=stop)):
        for _ in range(15):
            app.run()
            assert not app.exception
            assert not [error.value for error in app.error]
