"""What the Experiments page lists in tests, without a repository: a commit, an experiment, and one that is at work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from loupe.experiments import Experiment


def listed(root: Path, *, max_commits: int) -> tuple[Experiment, ...]:
    del root, max_commits
    scores, params = {"fd_demo_last": 29.0}, {"train.rank": 8, "train.learning_rate": 1e-3}
    trial = {**params, "train.rank": 16}
    changed = {"train.rank": (8, 16)}
    return (
        Experiment("workspace", "workspace", "workspace", "", "", "", params, {}, scores),
        Experiment("a" * 40, "main aaaaaaa", "commit", "", "2026-01-01", "", params, {}, scores),
        Experiment(
            "b" * 40, "bold-<b>shoe", "experiment", "main aaaaaaa", "", "", trial, changed, {"fd_demo_last": 21.5}
        ),
        Experiment("c" * 40, "slow-shoe", "experiment", "main aaaaaaa", "", "Running", trial, changed, {}),
    )


def with_one_queued(root: Path, *, max_commits: int) -> tuple[Experiment, ...]:
    *rows, running = listed(root, max_commits=max_commits)
    return (*rows, replace(running, state="Queued"))
