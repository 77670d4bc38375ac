"""The whole line under DVC: it runs once, runs nothing twice, redoes only what changed, and survives kill -9."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.pipeline.small_project import SmallProject, make_small_project

pytestmark = pytest.mark.pipeline
N_PROMPTS, N_SEEDS = 4, 2


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    """One project for the module; the tests below change it step by step, in their order."""
    small = make_small_project(tmp_path_factory.mktemp("small"))
    small.repro()
    return small


def ran(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def test_first_run_leaves_every_artefact_and_no_untracked_file(project: SmallProject) -> None:
    for name in ("dataset", "latents", "reference", "checkpoints", "samples", "evaluation", "confirmation", "export"):
        assert (project.root / "data" / name / "manifest.json").is_file(), name
    scores = pd.read_csv(project.root / "metrics" / "checkpoints.csv")
    assert scores["step"].tolist() == [0, 2, 4]
    assert (scores["n_images"] == N_PROMPTS * N_SEEDS).all()
    assert {"fd_demo", "is_demo", "clip_demo", "background_ok"} <= set(scores.columns)
    project.run("git", "add", "dvc.lock", "metrics")
    untracked = project.run("git", "ls-files", "--others", "--exclude-standard").stdout
    assert untracked == ""
    project.run("git", "commit", "-qm", "first run")


def test_second_run_runs_no_stage(project: SmallProject) -> None:
    assert ran(project.repro()) == []
    assert project.run("dvc", "status", "-q", check=False).returncode == 0


def test_results_can_be_shown_and_compared(project: SmallProject) -> None:
    shown = project.run("dvc", "metrics", "show", "--json").stdout
    assert "background_ok" in shown
    plots = project.run("dvc", "plots", "show", "--json").stdout
    assert "loss_smoothed" in plots


def test_every_score_can_be_computed_again(project: SmallProject) -> None:
    said = project.run("python", "-m", "loupe.cli", "verify").stdout
    found = re.search(r"^(\d+) numbers in metrics/ and in the manifests of data/ agree", said, re.MULTILINE)
    assert found, said
    of_checkpoints = pd.read_csv(project.root / "metrics" / "checkpoints.csv").select_dtypes("number").count().sum()
    assert int(found[1]) > of_checkpoints > 0


def test_a_new_prompt_renders_only_its_own_pictures(project: SmallProject) -> None:
    prompts = project.params()["generate"]["prompts"]
    project.change("generate", prompts={**prompts, "green_shoes": "a photo of green casual shoes"})
    assert ran(project.repro("generate")) == ["generate"]
    assert project.counts()["generate"] == (N_SEEDS * 3, N_PROMPTS * N_SEEDS * 3)


def test_raising_max_steps_goes_on_and_evaluates_only_the_new_checkpoint(project: SmallProject) -> None:
    before = project.adapter_sha256(4)
    project.change("train", max_steps=6)
    project.repro("evaluate")
    assert project.adapter_sha256(4) == before
    assert project.counts()["train"] == (2, 4)
    pictures_per_step = (N_PROMPTS + 1) * N_SEEDS
    assert project.counts()["generate"] == (pictures_per_step, 3 * pictures_per_step)
    assert pd.read_csv(project.root / "metrics" / "checkpoints.csv")["step"].tolist() == [0, 2, 4, 6]


def test_an_experiment_with_another_learning_rate_reuses_the_base_pictures(project: SmallProject) -> None:
    project.run("git", "commit", "-qam", "before the trial")
    project.run("dvc", "exp", "run", "--temp", "--name", "trial", "-S", "train.learning_rate=1e-5")
    base_pictures = (N_PROMPTS + 1) * N_SEEDS
    assert project.counts()["generate"] == (3 * base_pictures, base_pictures)
    table = project.run("dvc", "exp", "show", "--csv").stdout
    assert "trial" in table
    assert "1e-05" in table


def test_killed_training_goes_on_to_the_same_bytes(project: SmallProject, tmp_path: Path) -> None:
    """kill -9 in the middle of training, twice; then dvc repro ends with the adapter of an undisturbed run."""
    project.change("train", max_steps=36, checkpoint_every=12, learning_rate=3e-4)
    project.repro("train")
    undisturbed = project.adapter_sha256(36)
    curve = (project.root / "metrics" / "train.csv").read_bytes()
    store = project.root / ".work"
    store.rename(tmp_path / "undisturbed-work")
    for _ in range(2):
        _kill_after_some_steps(project)
        assert not (project.root / "data" / "checkpoints" / "manifest.json").exists()
    # DVC itself remembers the undisturbed outputs; forced, it must go on from the work store.
    project.repro("--force", "--no-run-cache", "--single-item", "train")
    computed, reused = project.counts()["train"]
    assert computed > 0, "nothing was left to compute: DVC or the store already held the end"
    assert reused > 0, "nothing was reused: the kill came before the first saved state"
    assert project.adapter_sha256(36) == undisturbed
    assert (project.root / "metrics" / "train.csv").read_bytes() == curve


def _kill_after_some_steps(project: SmallProject) -> None:
    """Start `dvc repro train`, wait until a training state has been stored, and kill the whole group."""
    stored = _stored_states(project)
    process = subprocess.Popen(
        ["dvc", "repro", "--force", "--no-run-cache", "--single-item", "train"],
        cwd=project.root, env=project.environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while _stored_states(project) <= stored and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, "training ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _stored_states(project: SmallProject) -> int:
    return sum(1 for f in (project.root / ".work" / "train").rglob("*.safetensors") if ".tmp" not in f.name)


def test_a_user_mistake_ends_the_run_in_one_sentence(project: SmallProject) -> None:
    kept = (project.root / "params.yaml").read_bytes()
    project.change("train", rank=0, max_steps=0)
    done = project.run("dvc", "repro", check=False)
    (project.root / "params.yaml").write_bytes(kept)
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert "train.rank: must be greater than 0 (got 0)" in output
    assert "train.max_steps: must be greater than 0 (got 0)" in output
    assert "Traceback" not in output
