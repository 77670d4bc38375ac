"""Metrics files that are missing, empty, cut short, full of NaN, or foreign: each is named with its mend."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loupe.atomic_io import write_csv
from loupe.run_state import run_state
from loupe.run_store import RunStore
from loupe.run_training import overfitting_signs, train_telemetry, validation_curve, validation_timesteps
from tests.run_fixture import Shape, age, complete_run

MADE_BY = {
    "metrics/checkpoints.csv": "evaluate",
    "metrics/per_image.csv": "evaluate",
    "metrics/overfitting.csv": "evaluate",
    "metrics/summary.json": "evaluate",
    "metrics/train.csv": "train",
    "metrics/validation.csv": "train",
    "metrics/validation_timesteps.csv": "train",
    "metrics/selection.json": "select",
    "metrics/final.json": "confirm",
    "metrics/final.csv": "confirm",
}
OPTIONAL = {
    "metrics/overfitting.csv",
    "metrics/validation.csv",
    "metrics/validation_timesteps.csv",
    "metrics/final.csv",
}
"""An older run has none, and is whole."""
READINGS: dict[str, Callable[[RunStore], Any]] = {
    "metrics/checkpoints.csv": RunStore.scores,
    "metrics/per_image.csv": RunStore.per_image,
    "metrics/overfitting.csv": overfitting_signs,
    "metrics/train.csv": RunStore.train_curve,
    "metrics/validation.csv": validation_curve,
    "metrics/validation_timesteps.csv": validation_timesteps,
    "metrics/selection.json": RunStore.selection,
    "metrics/final.json": RunStore.final,
    "metrics/final.csv": RunStore.final_scores,
    "pictures": lambda store: list(store.samples()),
    "prompts": RunStore.prompts,
    "telemetry": train_telemetry,
}


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut_short(file: Path) -> None:
    """In a table behind a whole cell count: the last number has lost a digit and is still one."""
    content = file.read_bytes()
    end = content.rstrip().rfind(b"\n") - 1 if file.suffix == ".csv" else len(content) * 2 // 3
    file.write_bytes(content[:end])


def full_of_nan(file: Path) -> None:
    """Every number of the last line of a table, or of a whole record."""
    text = file.read_text()
    if file.suffix == ".json":
        file.write_text(re.sub(r'(": ?)-?\d[\d.e+-]*', r"\1NaN", text))
        return
    *lines, last = text.splitlines()
    cells = ["nan" if re.fullmatch(r"-?\d[\d.e+-]*", cell) else cell for cell in last.split(",")]
    file.write_text("\n".join([*lines, ",".join(cells)]) + "\n")


def foreign(file: Path) -> None:
    file.write_text("epoch,accuracy\n1,0.5\n" if file.suffix == ".csv" else '[{"accuracy": 0.5}]')


def foreign_record(file: Path) -> None:
    file.write_text("name\n\u00e9,\n" if file.suffix == ".csv" else '{"step": "last", "model": {"accuracy": 0.5}}')


def binary(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 8)


DAMAGES = (empty, cut_short, full_of_nan, foreign, foreign_record, binary)


def write_overfitting(root: Path) -> None:
    """Give a fixture run of steps 75 and 150 its signs of overfitting."""
    signs = [{"step": step, "val_loss": 0.5, "kid_demo": 2.25, "kid_demo_lo": 1.5} for step in (0, 75, 150)]
    write_csv(root / "metrics" / "overfitting.csv", list(signs[0]), signs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = complete_run(tmp_path_factory.mktemp("whole"), Shape(steps=(75, 150), seeds=1, size_px=16))
    write_overfitting(root)
    age(root)
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", MADE_BY)
def test_a_damaged_file_is_named_with_the_mend_and_the_others_are_read(
    whole: Path, root: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(root / name)
    store, before = RunStore(root), RunStore(whole)
    state = run_state(store)
    assert state.kind == "corrupt"
    assert {problem.file for problem in state.problems} == {name}
    for problem in state.problems:
        assert f"dvc repro --force {MADE_BY[name]}" in problem.message
        assert str(root) not in problem.message
    for other, read in READINGS.items():
        if other != name:
            assert read(store) == read(before), other


@pytest.mark.parametrize("name", MADE_BY)
def test_a_missing_file_makes_its_stage_unfinished(root: Path, name: str) -> None:
    (root / name).unlink()
    state = run_state(RunStore(root))
    if name in OPTIONAL:
        assert state.kind == "complete"
        return
    assert (state.kind, state.next_command) == ("partial", "dvc repro")
    (stage,) = (stage for stage in state.stages if stage.status == "missing")
    assert (stage.name, stage.detail) == (MADE_BY[name], f"{name} is not there")


@pytest.mark.parametrize("name", MADE_BY)
def test_no_number_is_made_up_for_nan(root: Path, name: str) -> None:
    """What is no number is absent: neither NaN nor 0 comes out of any reading."""
    full_of_nan(root / name)
    store = RunStore(root)
    shown = repr([read(store) for read in READINGS.values()])
    assert not re.search(r"\bnan\b", shown)
    rows = {row.step: row for row in store.scores()}
    if name == "metrics/checkpoints.csv":
        assert 150 not in rows, "a row without its step is left out"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: [\n", "line 2, column 1"),
        ("train:\n  max_steps: NaN\n", "Field required|max_steps"),
        ("- 1\n", "must hold sections"),
        ("", "must hold sections"),
        ("<<<<<<< HEAD\nseed: 1\n", "line 2"),
        ("train: 3\n", "train"),
        ("sead: 1\n", "sead"),
    ],
)
def test_parameters_that_do_not_parse_are_named_and_all_else_is_read(
    whole: Path, root: Path, content: str, message: str
) -> None:
    (root / "params.yaml").write_text(content)
    store, before = RunStore(root), RunStore(whole)
    state = run_state(store)
    assert state.kind == "corrupt"
    assert {problem.file for problem in state.problems} == {"params.yaml"}
    assert re.search(message, " ".join(problem.message for problem in state.problems))
    for name, read in READINGS.items():
        assert read(store) == read(before), name


def test_results_without_their_parameters_are_named(root: Path) -> None:
    (root / "params.yaml").unlink()
    (problem,) = run_state(RunStore(root)).problems
    assert problem.file == "params.yaml"
    assert "unknown what these results were made with" in problem.message


@pytest.mark.parametrize(
    "content",
    ["", "hello\n", "stages: [1]\n", "stages:\n  train: 3\n", "<<<<<<< HEAD\nschema: '2.0'\n", "a: [\n", "\x00"],
)
def test_a_damaged_dvc_lock_is_named_with_the_mend(root: Path, content: str) -> None:
    (root / "dvc.lock").write_text(content)
    state = run_state(RunStore(root))
    assert {problem.file for problem in state.problems} == {"dvc.lock"}
    assert all("git checkout dvc.lock" in problem.message for problem in state.problems)


def test_a_lock_that_remembers_less_than_usual_is_read(root: Path) -> None:
    (root / "dvc.lock").write_text("schema: '2.0'\nstages:\n  train: {cmd: x, params: {params.yaml: null}}\n  a: {}\n")
    assert run_state(RunStore(root)).kind == "complete"
