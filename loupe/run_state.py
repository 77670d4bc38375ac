"""What state a run is in, stage by stage, and which command comes next. It judges files only; it never asks DVC.

`dvc status` takes locks and fails while a stage runs, so the three signs are read directly: the file each stage writes
last, the parameters that dvc.lock remembers, and DVC's list of the paths that a living process is writing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loupe.metric_specs import MEASURE_ANEW
from loupe.run_files import Problem, listing, signature
from loupe.run_params import missing_params
from loupe.run_samples import pictures_in
from loupe.run_stale import UNWATCHED, stale_stages
from loupe.run_store import RunStore
from loupe.run_training import (
    overfitting_signs,
    preview_prompts,
    train_telemetry,
    training_left_s,
    validation_curve,
    validation_timesteps,
)

StageStatus = Literal["done", "missing", "running", "stale", "corrupt"]
RunKind = Literal["absent", "running", "partial", "stale", "corrupt", "complete"]
_FRESH_S = 120.0
"""A folder without its manifest counts as being written when something in it changed this recently."""


@dataclass(frozen=True, slots=True)
class _StageFiles:
    """What tells about one stage: what it builds on, the files it writes last, and the folder it fills before."""

    name: str
    builds_on: tuple[str, ...]
    last: tuple[str, ...]
    folder: str | None


STAGES = (
    _StageFiles("prepare", (), ("data/dataset/manifest.json",), "data/dataset"),
    _StageFiles("encode", ("prepare",), ("data/latents/manifest.json",), "data/latents"),
    _StageFiles("reference", ("prepare",), ("data/reference/manifest.json",), "data/reference"),
    _StageFiles("train", ("encode",), ("data/checkpoints/manifest.json", "metrics/train.csv"), "data/checkpoints"),
    _StageFiles("generate", ("train",), ("data/samples/manifest.json",), "data/samples"),
    _StageFiles(
        "evaluate",
        ("generate", "reference"),
        (
            "data/evaluation/manifest.json",
            "metrics/checkpoints.csv",
            "metrics/per_image.csv",
            "metrics/summary.json",
        ),
        "data/evaluation",
    ),
    _StageFiles("select", ("evaluate",), ("metrics/selection.json",), None),
    _StageFiles("confirm", ("select",), ("data/confirmation/manifest.json", "metrics/final.json"), "data/confirmation"),
    _StageFiles("export", ("select",), ("data/export/manifest.json",), "data/export"),
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running stage is."""

    done: int
    total: int
    unit: str
    left_s: float | None
    """Estimated seconds left, from the rate so far; None before that is known."""


@dataclass(frozen=True, slots=True)
class StageState:
    """One stage: what it is in, and why, in words for the user."""

    name: str
    status: StageStatus
    detail: str


@dataclass(frozen=True, slots=True)
class RunState:
    """The whole run."""

    kind: RunKind
    summary: str
    """One sentence in plain words."""
    next_command: str | None
    stages: tuple[StageState, ...]
    progress: Progress | None
    problems: tuple[Problem, ...]


def run_state(store: RunStore, *, now_s: float | None = None) -> RunState:
    """Judge the run; `now_s` is the time in seconds since the epoch (for tests)."""
    now_s = time.time() if now_s is None else now_s
    stale = stale_stages(store)
    problems = _problems(store)
    running = _running_stage(store.paths.root, now_s)
    stages = _with_consequences([_stage_state(store, stage, running, stale, problems) for stage in STAGES])
    progress = _progress(store, running, now_s) if running else None
    kind = _kind(stages, problems)
    next_command = _next_command(kind, measures_anew=stale.get("reference", "").endswith(UNWATCHED))
    return RunState(kind, _summary(kind, stages, problems), next_command, stages, progress, problems)


def _problems(store: RunStore) -> tuple[Problem, ...]:
    """Read all small files, also those that only one page shows, so that every page tells of the same problems."""
    root, metrics = store.paths.root, store.paths.metrics
    store.files.json_object(metrics / "summary.json", made_by="evaluate")
    for read in (validation_curve, validation_timesteps, overfitting_signs, train_telemetry, preview_prompts):
        read(store)
    store.final_scores()
    store.looks()
    found = store.problems()
    has_results = any((root / file).is_file() for stage in STAGES for file in stage.last)
    return (missing_params(root), *found) if has_results and signature(root / "params.yaml") is None else found


def _stage_state(
    store: RunStore, stage: _StageFiles, running: str | None, stale: Mapping[str, str], problems: tuple[Problem, ...]
) -> StageState:
    root = store.paths.root
    broken = next((p for p in problems if p.file in stage.last or _belongs(p.file, stage.folder)), None)
    absent = [file for file in stage.last if not (root / file).is_file()]
    if stage.name == running:
        return StageState(stage.name, "running", "at work")
    if broken:
        return StageState(stage.name, "corrupt", f"{broken.file} {broken.message}")
    if absent:
        return StageState(stage.name, "missing", f"{absent[0]} is not there")
    if stage.name in stale:
        return StageState(stage.name, "stale", stale[stage.name])
    return StageState(stage.name, "done", "done")


def _with_consequences(states: list[StageState]) -> tuple[StageState, ...]:
    """Mark a finished stage as stale when something it builds on is at work, stale, corrupt or missing."""
    judged: dict[str, StageState] = {}
    for state, stage in zip(states, STAGES, strict=True):
        older = next((name for name in stage.builds_on if judged[name].status != "done"), None)
        behind = older is not None and state.status == "done"
        judged[state.name] = (
            StageState(state.name, "stale", f"it builds on {older}, which is not up to date") if behind else state
        )
    return tuple(judged.values())


def _belongs(file: str, folder: str | None) -> bool:
    return folder is not None and file.startswith(f"{folder}/")


def _kind(stages: tuple[StageState, ...], problems: tuple[Problem, ...]) -> RunKind:
    statuses = {stage.status for stage in stages}
    if "running" in statuses:
        return "running"
    if problems:
        return "corrupt"
    if statuses == {"missing"}:
        return "absent"
    if "missing" in statuses:
        return "partial"
    return "stale" if "stale" in statuses else "complete"


def _summary(kind: RunKind, stages: tuple[StageState, ...], problems: tuple[Problem, ...]) -> str:
    named = {status: [s.name for s in stages if s.status == status] for status in ("missing", "stale", "running")}
    first_stale = next((f" ({s.name}: {s.detail})" for s in stages if s.status == "stale"), "")
    return {
        "absent": "There is no run here yet.",
        "running": f"Stage {', '.join(named['running'])} is at work; the page follows it.",
        "partial": f"Not finished: {', '.join(named['missing'])} {_is(named['missing'])} still to come.",
        "stale": f"Results are older than what they build on: {', '.join(named['stale'])}{first_stale}.",
        "corrupt": f"{len(problems)} {'file' if len(problems) == 1 else 'findings'} cannot be believed; "
        "everything else is shown.",
        "complete": "The run is complete and matches params.yaml.",
    }[kind]


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _next_command(kind: RunKind, *, measures_anew: bool) -> str | None:
    if measures_anew and kind in ("partial", "stale"):
        return MEASURE_ANEW
    return "dvc repro" if kind in ("absent", "partial", "stale") else None


# --- running ---------------------------------------------------------------------------------------------------------


def _running_stage(root: Path, now_s: float) -> str | None:
    """Return the stage that a living DVC process is writing, or else one whose folder is filling without a manifest."""
    written = _paths_being_written(root)
    for stage in STAGES:
        outputs = [root / file for file in stage.last] + ([root / stage.folder] if stage.folder else [])
        if any(path == output or path in output.parents for path in written for output in outputs):
            return stage.name
    return next((stage.name for stage in STAGES if _is_filling(root, stage, now_s)), None)


def _is_filling(root: Path, stage: _StageFiles, now_s: float) -> bool:
    if stage.folder is None or (root / stage.last[0]).is_file():
        return False
    return now_s - _last_change_s(root / stage.folder) < _FRESH_S


def _paths_being_written(root: Path) -> list[Path]:
    try:
        locks = json.loads((root / ".dvc" / "tmp" / "rwlock").read_bytes())
        written = locks.get("write", {}).items()
        return [Path(path) for path, info in written if is_alive(int(info["pid"]))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def is_alive(pid: int) -> bool:
    """Whether a process of this number exists on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _last_change_s(folder: Path) -> float:
    times = [found[0] for path in (folder, *listing(folder)) if (found := signature(path))]
    return max(times, default=0) / 1e9


def _progress(store: RunStore, stage: str, now_s: float) -> Progress | None:
    params = store.params()
    if params is None:
        return None
    if stage == "generate":
        pictures = pictures_in(store.files, store.paths.samples)
        n_prompts = len(params.generate.prompts) + params.generate.val_captions
        total = n_prompts * params.generate.seeds_per_prompt * len(store.steps())
        times = [found[0] / 1e9 for path in pictures.values() if (found := signature(path))]
        started_s = min(times, default=now_s)
        return _paced(len(pictures), total, "pictures", max(times, default=now_s) - started_s)
    if stage == "train":
        curve = store.train_curve()
        done, total = curve[-1].step if curve else 0, params.train.max_steps
        return Progress(done, total, "steps", training_left_s(store, done=done, total=total))
    return None


def _paced(done: int, total: int, unit: str, elapsed_s: float) -> Progress:
    left = elapsed_s / (done - 1) * (total - done) if done > 1 and elapsed_s > 0 and total > done else None
    return Progress(done, max(total, done), unit, left)
