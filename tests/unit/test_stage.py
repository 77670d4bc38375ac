"""The frame of a stage: one process at a time writes a stage's outputs in a folder."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loupe.file_lock import hold

ROOT = Path(__file__).resolve().parents[2]
STAGE = """
import sys, time
from pathlib import Path
from loupe.stage import run_stage

def work(params, paths, store):
    log = Path("log")
    with log.open("a") as file:
        file.write(f"{params.seed} in\\n")
    while not Path("end").exists():
        time.sleep(0.01)
    with log.open("a") as file:
        file.write(f"{params.seed} out\\n")

run_stage("train", "A stage that waits to be ended.", work, may_be_many=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a_stage.py").write_text(STAGE)
    return tmp_path


def start(folder: Path, *, seed: int, **environment: str) -> subprocess.Popen[str]:
    """Start the stage with parameters of its own: another seed is another run in every key."""
    params = folder / f"params-{seed}.yaml"
    text = (ROOT / "params.yaml").read_text()
    assert "\nseed: 42" in f"\n{text}"
    params.write_text(text.replace("seed: 42", f"seed: {seed}", 1))
    command = [sys.executable, "a_stage.py", "--params", params.name]
    return subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(file: Path, text: str) -> None:
    for _ in range(6000):
        if file.exists() and text in file.read_text():
            return
        signal.sigtimedwait([], 0.01)
    raise AssertionError(f"{text!r} never came")


def test_a_run_with_other_parameters_waits_for_the_one_that_was_left_behind(folder: Path) -> None:
    """Killing `dvc repro` may leave its stage running, which would go on writing the same outputs."""
    left_behind = start(folder, seed=1)
    wait_for(folder / "log", "1 in")
    second = start(folder, seed=2)
    assert second.stdout is not None
    said = second.stdout.readline()
    assert (
        said
        == f"Another process runs stage train in this folder (process {left_behind.pid}); waiting for it to finish.\n"
    )
    assert (folder / "log").read_text() == "1 in\n"

    (folder / "end").touch()

    assert (left_behind.wait(60), second.wait(60)) == (0, 0)
    assert (folder / "log").read_text().split("\n") == ["1 in", "1 out", "2 in", "2 out", ""]


def test_the_lock_goes_with_its_process_however_that_ends(folder: Path) -> None:
    killed = start(folder, seed=1)
    wait_for(folder / "log", "1 in")
    killed.send_signal(signal.SIGKILL)
    killed.wait(60)
    (folder / "end").touch()
    assert start(folder, seed=2).wait(60) == 0


def test_another_folder_is_no_hindrance(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    first = start(folder, seed=1)
    wait_for(folder / "log", "1 in")
    other = tmp_path_factory.mktemp("other")
    shutil.copy(folder / "a_stage.py", other)
    (other / "end").touch()
    assert start(other, seed=2).wait(60) == 0
    (folder / "end").touch()
    assert first.wait(60) == 0


def test_of_several_processes_the_main_one_refuses_instead_of_waiting(folder: Path) -> None:
    """The others could not tell a main process that waits from one that is lost."""
    first = start(folder, seed=1)
    wait_for(folder / "log", "1 in")
    main = start(folder, seed=2, WORLD_SIZE="2", RANK="0")
    _, error = main.communicate(timeout=60)
    assert main.returncode == 2
    assert error.startswith(f"error: Another process runs stage train in this folder (process {first.pid}). Wait until")
    (folder / "end").touch()
    assert start(folder, seed=3, WORLD_SIZE="2", RANK="1").wait(60) == 0
    assert first.wait(60) == 0


def test_a_disk_without_locks_is_said_and_worked_on(tmp_path, monkeypatch, capsys):
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("loupe.file_lock.fcntl.flock", refused)
    with hold(tmp_path / "locks" / "a", busy="busy"):
        pass
    assert "is on a disk without locks (No locks available): start nothing beside this" in capsys.readouterr().out


def test_a_lock_can_be_taken_again_and_names_its_last_holder(tmp_path: Path) -> None:
    for _ in range(2):
        with hold(tmp_path / "locks" / "a", busy="busy"):
            assert (tmp_path / "locks" / "a").read_text() == str(os.getpid())
