"""Runs on disk in every state the readers must bear: complete, running, partial, stale, corrupt, absent.

Built from the records themselves, with small drawings as pictures; no torch and no stage is needed. The numbers are
made up and smooth, so that a test can say what a page must show. The parts: run_shape.py, run_parts.py,
run_training_parts.py; tests take them from here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from loupe.paths import ProjectPaths
from tests.run_parts import (
    age,
    edit_params,
    hold_lock,
    write_ends,
    write_evaluation,
    write_lock,
    write_params,
    write_prepared,
    write_samples,
    write_selection,
)  # fmt: skip
from tests.run_shape import NASTY, ROOT, Painter, Shape, draw_sample, paint_shoe, prompts_of
from tests.run_training_parts import (
    validation_loss,
    write_checkpoints,
    write_previews,
    write_telemetry,
    write_validation,
)

__all__ = [
    "NASTY", "ROOT", "RUNS", "Shape", "age", "complete_run", "corrupt_run", "draw_sample", "edit_params", "hold_lock",
    "paint_shoe", "partial_run", "prompts_of", "running_run", "stale_run", "validation_loss", "write_params",
    "write_previews", "write_samples", "write_selection", "write_telemetry",
]  # fmt: skip


USUAL = Shape()


def complete_run(root: Path, shape: Shape = USUAL, paint: Painter = paint_shoe) -> Path:
    """A whole run that matches its params.yaml and dvc.lock."""
    write_params(root, shape)
    write_prepared(root, shape)
    write_checkpoints(root, shape)
    write_validation(root, shape)
    write_telemetry(root, shape)
    write_samples(root, shape, paint)
    write_evaluation(root, shape)
    write_selection(root, shape)
    write_ends(root, shape)
    write_lock(root)
    return root


def partial_run(root: Path, shape: Shape = USUAL) -> Path:
    """Trained, but nothing generated yet."""
    write_params(root, shape)
    write_prepared(root, shape)
    write_checkpoints(root, shape)
    write_validation(root, shape)
    write_telemetry(root, shape)
    write_lock(root)
    age(root)
    return root


def running_run(root: Path, shape: Shape = USUAL, *, drawn_steps: tuple[int, ...] = (0, 75)) -> Path:
    """`generate` is at work under DVC: some pictures are there, their manifest is not."""
    complete_run(root, shape)
    paths = ProjectPaths(root)
    (paths.samples / "manifest.json").unlink()
    for file in paths.samples.rglob("*.png"):
        if int(file.stem) not in drawn_steps:
            file.unlink()
    shutil.rmtree(paths.evaluation)
    shutil.rmtree(paths.confirmation)
    for file in ("checkpoints.csv", "per_image.csv", "summary.json", "selection.json", "final.json"):
        (paths.metrics / file).unlink()
    hold_lock(root, paths.samples, pid=os.getpid())
    return root


def stale_run(root: Path, shape: Shape = USUAL) -> Path:
    """Complete, but params.yaml was edited afterwards."""
    complete_run(root, shape)
    edit_params(root, "train", "learning_rate", 0.0005)
    return root


def corrupt_run(root: Path, shape: Shape = USUAL) -> Path:
    """Complete, but then: NaN and half a row in the scores, a truncated selection, a half PNG, a missing one."""
    complete_run(root, shape)
    paths = ProjectPaths(root)
    scores = paths.metrics / "checkpoints.csv"
    lines = scores.read_text().splitlines()
    cells = lines[1].split(",")
    cells[lines[0].split(",").index("fd_demo")] = "nan"
    scores.write_text("\n".join([lines[0], ",".join(cells), *lines[2:-1], lines[-1][:9]]) + "\n")
    (paths.metrics / "selection.json").write_text('{"verdict": "sel')
    half = paths.samples / "red_shoes-0" / "000075.png"
    half.write_bytes(half.read_bytes()[:100])
    (paths.samples / "red_shoes-0" / "000150.png").unlink()
    return root


RUNS: dict[str, Callable[[Path], Path]] = {
    "absent": lambda root: root,
    "partial": partial_run,
    "running": running_run,
    "stale": stale_run,
    "corrupt": corrupt_run,
    "complete": complete_run,
}
