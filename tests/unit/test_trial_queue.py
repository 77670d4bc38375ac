"""What a trial is doing, read from the files that DVC keeps of it; and DVC's answer when a command fails."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from loupe.atomic_io import write_text
from loupe.errors import PipelineError
from loupe.experiments import Experiment, experiments
from loupe.params import load_params
from loupe.trial_params import plan_trials, queue_command
from loupe.trial_queue import LOG_LINES, START, STOP, run_dvc, trial_view, worker_is_alive
from tests.run_fixture import Shape, complete_run, hold_lock, write_telemetry
from tests.small_repository import git, two_commits

REV = "ab" * 20
SHAPE = Shape(steps=(75, 150), seeds=1, size_px=16, captions=0)
DEAD_PID = 2**22 + 7


def write_trial(root: Path, log: str, *, workspace: Path | None = None) -> None:
    folder = root / ".dvc" / "tmp" / "exps" / "run" / REV
    folder.mkdir(parents=True)
    (folder / f"{REV}.out").write_text(log)
    (folder / f"{REV}.run").write_text(json.dumps({"root_dir": str(workspace), "status": 2}))


def write_worker(root: Path, *, pid: int, returncode: int | None) -> None:
    folder = root / ".dvc" / "tmp" / "exps" / "celery"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dvc-exp-worker-1.json").write_text(json.dumps({"pid": pid, "returncode": returncode}))


def test_a_running_trial_says_its_stage_step_and_time_left(tmp_path: Path) -> None:
    workspace = complete_run(tmp_path / ".dvc" / "tmp" / "exps" / "tmp1", SHAPE)
    curve = workspace / "metrics" / "train.csv"
    curve.write_text("".join(curve.read_text().splitlines(keepends=True)[:61]))
    (workspace / "data" / "checkpoints" / "manifest.json").unlink()
    write_telemetry(workspace, SHAPE, until=60)
    hold_lock(workspace, workspace / "data" / "checkpoints", pid=os.getpid())
    write_trial(tmp_path, f"Running stage 'train'\ntrain: 60/150 steps in {workspace}/data\n", workspace=workspace)
    view = trial_view(tmp_path, REV, running=True)
    assert view.stage == "train"
    assert (view.progress.done, view.progress.total, view.progress.unit) == (60, 150, "steps")
    assert view.progress.left_s == pytest.approx(0.4 * 90)
    assert view.log[-1] == "train: 60/150 steps in data"
    assert trial_view(tmp_path, REV[:7], running=True) == view, "a short hash names it as well"


def test_a_failed_trial_shows_the_last_lines_without_bars_colours_or_paths(tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(40)]
    end = f"  10%\r 100%\r done\n\x1b[31mERROR\x1b[0m: no file {tmp_path}/data/x.png\n\n"
    write_trial(tmp_path, "\n".join(lines) + "\n" + end)
    view = trial_view(tmp_path, REV, running=False)
    assert (view.stage, view.progress) == ("", None)
    assert len(view.log) == LOG_LINES
    assert view.log[-2:] == (" done", "ERROR: no file data/x.png")


@pytest.mark.parametrize("rev", ["../../..", "", "ab/..", REV + "0", "workspace"])
def test_a_revision_that_dvc_keeps_nothing_of_is_empty(tmp_path: Path, rev: str) -> None:
    write_trial(tmp_path, "x\n")
    assert trial_view(tmp_path, rev, running=True).log == ()


def test_a_workspace_outside_the_project_is_not_looked_into(tmp_path: Path) -> None:
    elsewhere = complete_run(tmp_path / "elsewhere", SHAPE)
    hold_lock(elsewhere, elsewhere / "data" / "checkpoints", pid=os.getpid())
    write_trial(tmp_path / "project", "x\n", workspace=elsewhere)
    assert trial_view(tmp_path / "project", REV, running=True).stage == ""


@pytest.mark.parametrize(
    ("pid", "returncode", "alive"),
    [(os.getpid(), None, True), (os.getpid(), 0, False), (DEAD_PID, None, False)],
    ids=["running", "ended", "dead"],
)
def test_a_worker_is_alive_while_its_process_is(tmp_path: Path, pid: int, returncode: int | None, alive: bool) -> None:
    assert not worker_is_alive(tmp_path)
    write_worker(tmp_path, pid=pid, returncode=returncode)
    assert worker_is_alive(tmp_path) is alive


def test_a_command_that_fails_says_what_dvc_said(tmp_path: Path) -> None:
    with pytest.raises(
        PipelineError, match=r"`dvc queue start -j 1` failed: .*not inside of a DVC repository"
    ) as failed:
        run_dvc(tmp_path, ["dvc", "queue", "start", "-j", "1"])
    assert str(tmp_path) not in str(failed.value)


def test_a_queued_trial_runs_and_a_broken_one_fails_with_its_log(tmp_path: Path) -> None:
    """With DVC itself: queued, started, ended, and the project's own files as they were."""
    root = two_commits(tmp_path)
    fails_at_16 = "python -c \"import sys; print(1); sys.exit(open('params.yaml').read().count('rank: 16'))\""
    write_text(root / "dvc.yaml", yaml_of({"stages": {"train": {"cmd": fails_at_16, "params": ["train"]}}}))
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "stage")
    before = (root / "params.yaml").read_bytes()
    plan = plan_trials(load_params(root / "params.yaml"), {"train.rank": "4, 16"})
    run_dvc(root, queue_command(plan))
    assert (root / "params.yaml").read_bytes() == before
    waiting = [row for row in experiments(root, max_commits=1) if row.kind == "experiment"]
    assert [(row.state, row.scores) for row in waiting] == [("Queued", {})] * 2
    run_dvc(root, START)
    try:
        assert worker_is_alive(root), "starting returns while the worker is at work"
        rows = wait_until_ended(root)
    finally:
        run_dvc(root, STOP)
    by_rank = {row.params["train.rank"]: row for row in rows}
    assert (by_rank[4].state, by_rank[16].state) == ("", "Failed")
    log = "\n".join(trial_view(root, by_rank[16].rev, running=False).log)
    assert "failed to reproduce 'train'" in log
    assert str(root) not in log


def wait_until_ended(root: Path) -> list[Experiment]:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            rows = [row for row in experiments(root, max_commits=1) if row.kind == "experiment"]
        except PipelineError:  # DVC cannot list them in the moment in which a trial is set up
            rows = []
        if rows and all(row.state in ("", "Failed") for row in rows):
            return rows
        time.sleep(0.5)
    raise AssertionError(f"still unfinished: {rows}")


def yaml_of(document: dict) -> str:
    buffer = io.StringIO()
    YAML().dump(document, buffer)
    return buffer.getvalue()
