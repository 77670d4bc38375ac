"""Evaluated projects, each made once and handed out as a copy to change, and toy scorers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stages.evaluate import evaluate
from stages.reference import reference
from stages.select import select
from tests.unit.metrics.evaluation_project import Run
from tests.unit.metrics.small_run import write_toy_classifier, write_toy_clip


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run up to select; tests only read it."""
    done = Run(tmp_path_factory.mktemp("run"))
    for work in (reference, evaluate, select):
        done.stage(work)
    return done


@pytest.fixture(scope="session")
def evaluated_once(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run up to evaluate with one checkpoint and three prompts; tests only copy it."""
    done = Run(tmp_path_factory.mktemp("once"), steps=(0, 10), n_prompts=3)
    done.stage(reference)
    done.stage(evaluate)
    return done


@pytest.fixture
def evaluated(evaluated_once: Run, tmp_path: Path) -> Run:
    """A copy of an evaluated project, to change."""
    shutil.copytree(evaluated_once.paths.root, tmp_path / "run")
    return Run(tmp_path / "run", made=True)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as data/demo, with toy scorers."""
    folder = tmp_path_factory.mktemp("demo")
    write_toy_classifier(folder / "classifier")
    write_toy_clip(folder / "clip")
    return folder


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The parent of empty caches of torch and Hugging Face."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path
