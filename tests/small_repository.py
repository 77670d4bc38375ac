"""A small git and DVC project with pictures, for tests that read commits and experiments. No stage is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from loupe.atomic_io import write_json, write_text
from loupe.paths import ProjectPaths
from tests.run_fixture import Shape, edit_params, paint_shoe, write_params, write_samples

SHAPE = Shape(steps=(75,), seeds=1, size_px=16, captions=0)
GIT = {
    "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org", "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@example.org", "GIT_CONFIG_GLOBAL": os.devnull,
}  # fmt: skip


def git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=root, env={**os.environ, **GIT}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def dvc(root: Path, *words: str) -> None:
    environment = {**os.environ, **GIT, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def draw(root: Path, shift: int) -> None:
    """Pictures that `shift` tells apart, kept by DVC."""
    write_samples(root, SHAPE, lambda colour, seed, share, side: paint_shoe(colour, seed + shift, share, side))
    write_json(ProjectPaths(root).metrics / "summary.json", {"fd_demo_last": 30.0 - shift, "n_images": 4})
    dvc(root, "add", "-q", "data/samples")


def two_commits(root: Path) -> Path:
    """Two commits, with other pictures, scores and learning rate."""
    write_params(root, SHAPE)
    git(root, "init", "-q")
    dvc(root, "init", "-q")
    draw(root, 0)
    write_text(root / "dvc.yaml", "metrics: [metrics/summary.json]\nparams: [params.yaml]\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "first")
    edit_params(root, "train", "learning_rate", 0.0005)
    draw(root, 1)
    git(root, "commit", "-q", "-a", "-m", "second")
    return root
