"""The state of a run is told from its files: absent, running, partial, stale and why, corrupt and where, complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loupe.atomic_io import sha256_file
from loupe.run_state import RunState, run_state
from loupe.run_store import RunStore
from tests.run_fixture import RUNS, Shape, age, complete_run, edit_params, hold_lock, running_run
from tests.run_parts import write_lock

SMALL = Shape(seeds=1, size_px=16)


def state_of(root: Path) -> RunState:
    return run_state(RunStore(root))


def status_of(state: RunState, name: str) -> str:
    return next(stage.status for stage in state.stages if stage.name == name)


@pytest.mark.parametrize("kind", RUNS)
def test_each_fixture_is_recognised(tmp_path: Path, kind: str) -> None:
    RUNS[kind](tmp_path)
    assert state_of(tmp_path).kind == kind


def test_absent_and_partial_name_the_next_command_and_complete_names_none(tmp_path: Path) -> None:
    for kind in ("absent", "partial", "stale"):
        RUNS[kind](tmp_path / kind)
        assert state_of(tmp_path / kind).next_command == "dvc repro"
    complete_run(tmp_path / "complete", SMALL)
    assert state_of(tmp_path / "complete").next_command is None


def test_running_tells_stage_and_progress(tmp_path: Path) -> None:
    state = state_of(running_run(tmp_path))
    assert status_of(state, "generate") == "running"
    assert (state.progress.done, state.progress.total) == (20, 50)


def test_a_lock_of_a_process_that_is_gone_is_no_running_stage(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    complete_run(tmp_path, SMALL)
    hold_lock(tmp_path, tmp_path / "data" / "samples", pid=gone.pid)
    assert state_of(tmp_path).kind == "complete"


@pytest.mark.parametrize("lock", ["", "[]", '{"write": {"x": {"pid": "?"}}}', '{"write": []}'])
def test_a_broken_lock_file_is_no_running_stage(tmp_path: Path, lock: str) -> None:
    complete_run(tmp_path, SMALL)
    hold_lock(tmp_path, tmp_path, pid=1)
    (tmp_path / ".dvc" / "tmp" / "rwlock").write_text(lock)
    assert state_of(tmp_path).kind == "complete"


def test_a_folder_that_fills_without_dvc_counts_as_running_until_it_rests(tmp_path: Path) -> None:
    running_run(tmp_path)
    shutil.rmtree(tmp_path / ".dvc")
    assert state_of(tmp_path).kind == "running"
    age(tmp_path)
    assert state_of(tmp_path).kind == "partial"


@pytest.mark.parametrize(
    ("section", "key", "value", "stage"),
    [
        ("train", "rank", 4, "train"),
        ("generate", "guidance_scale", 7.5, "generate"),
        ("select", "max_invalid", 3, "select"),
        ("train", "random_flip", True, "encode"),
    ],
)
def test_an_edited_parameter_makes_its_stage_stale_and_says_what_changed(
    tmp_path: Path, section: str, key: str, value: float, stage: str
) -> None:
    complete_run(tmp_path, SMALL)
    edit_params(tmp_path, section, key, value)
    state = state_of(tmp_path)
    assert status_of(state, stage) == "stale"
    detail = next(s.detail for s in state.stages if s.name == stage)
    assert f"{section}.{key}" in detail
    assert str(value) in detail


def test_what_builds_on_a_stale_stage_is_stale_too_and_nothing_else(tmp_path: Path) -> None:
    complete_run(tmp_path, SMALL)
    edit_params(tmp_path, "train", "rank", 4)
    stale = {stage.name for stage in state_of(tmp_path).stages if stage.status == "stale"}
    assert stale == {"train", "generate", "evaluate", "select", "confirm", "export"}


def test_while_a_stage_runs_what_was_made_from_its_last_result_is_old(tmp_path: Path) -> None:
    complete_run(tmp_path, SMALL)
    hold_lock(tmp_path, tmp_path / "data" / "checkpoints", pid=os.getpid())
    state = state_of(tmp_path)
    assert state.kind == "running"
    assert status_of(state, "reference") == "done"
    assert status_of(state, "select") == "stale"


def test_a_float_that_dvc_writes_with_an_exponent_is_the_same_number(tmp_path: Path) -> None:
    complete_run(tmp_path, SMALL)
    lock = tmp_path / "dvc.lock"
    assert "learning_rate: 0.002" in lock.read_text()
    lock.write_text(lock.read_text().replace("learning_rate: 0.002", "learning_rate: 2e-03"))
    assert state_of(tmp_path).kind == "complete"


def test_more_steps_make_training_stale_without_any_lock(tmp_path: Path) -> None:
    complete_run(tmp_path, SMALL)
    (tmp_path / "dvc.lock").unlink()
    edit_params(tmp_path, "train", "max_steps", 375)
    assert status_of(state_of(tmp_path), "train") == "stale"


def test_a_replaced_extractor_file_makes_reference_stale_with_the_command_that_measures_anew(tmp_path: Path) -> None:
    complete_run(tmp_path, SMALL)
    weights, manifest = tmp_path / "mine.safetensors", tmp_path / "data" / "evaluation" / "manifest.json"
    weights.write_bytes(b"weights")
    manifest.write_text(manifest.read_text().replace("2" * 64, sha256_file(weights)))
    edit_params(tmp_path, "evaluate", "extractors", ["demo", "ViT-B-32/mine.safetensors@laion2b_s34b_b79k"])
    write_lock(tmp_path)
    assert state_of(tmp_path).kind == "complete"

    other = tmp_path / "other.safetensors"
    other.write_bytes(b"Weights")
    os.utime(other, (1, 1))
    other.replace(weights)
    state = state_of(tmp_path)
    stale = {stage.name for stage in state.stages if stage.status == "stale"}
    assert stale == {"reference", "evaluate", "select", "confirm", "export"}
    assert "mine.safetensors@laion2b_s34b_b79k is not what the scores were measured with" in state.summary
    assert state.next_command == "dvc repro --force --single-item reference && dvc repro"

    edit_params(tmp_path, "evaluate", "batch_size", 7)
    assert state_of(tmp_path).next_command == "dvc repro", "then DVC runs it again by itself"


def test_a_file_that_was_there_before_the_scores_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"other weights than those of the scores")
    complete_run(tmp_path, SMALL)
    edit_params(tmp_path, "evaluate", "extractors", ["demo", f"ViT-B-32/{weights}"])
    write_lock(tmp_path)
    later = weights.stat().st_ctime + 10
    os.utime(tmp_path / "data" / "evaluation" / "manifest.json", (later, later))
    monkeypatch.setattr(
        "loupe.run_files.sha256_file", lambda path: sha256_file(path) if path != weights else pytest.fail("it was read")
    )
    assert state_of(tmp_path).kind == "complete"


def test_scores_of_other_pictures_are_stale(tmp_path: Path) -> None:
    complete_run(tmp_path, SMALL)
    manifest = tmp_path / "data" / "samples" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"guidance_scale": 4.0', '"guidance_scale": 4.5'))
    assert status_of(state_of(tmp_path), "evaluate") == "stale"


def test_results_of_a_clone_without_data_are_partial(tmp_path: Path) -> None:
    complete_run(tmp_path, SMALL)
    shutil.rmtree(tmp_path / "data")
    state = state_of(tmp_path)
    assert state.kind == "partial"
    assert status_of(state, "select") == "stale"


def test_corrupt_says_where(tmp_path: Path) -> None:
    complete_run(tmp_path, SMALL)
    (tmp_path / "data" / "checkpoints" / "manifest.json").write_text("{")
    state = state_of(tmp_path)
    assert state.kind == "corrupt"
    assert status_of(state, "train") == "corrupt"
    assert [problem.file for problem in state.problems] == ["data/checkpoints/manifest.json"]
