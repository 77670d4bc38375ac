import csv
import json
import shutil
import subprocess
import sys

import pytest
import torch

from loupe.atomic_io import read_record
from loupe.diffusion.adapter import read_adapter
from loupe.diffusion.device_memory import DeviceFull
from loupe.diffusion.trackers import Trackers
from loupe.diffusion.training import Trainer
from loupe.errors import PipelineError
from loupe.params import load_params
from loupe.paths import ProjectPaths
from loupe.records import CheckpointsManifest
from loupe.workstore import WorkStore
from stages.encode import encode
from stages.train import train
from tests.tiny_models import build_tiny_base_model
from tests.unit.diffusion.tiny_project import stage_environment, write_encoded_project, write_params


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, tiny_base_model):
    return write_encoded_project(tmp_path_factory.mktemp("encoded") / "project", base=tiny_base_model)


@pytest.fixture
def project(encoded, tmp_path, monkeypatch):
    root = shutil.copytree(encoded, tmp_path / "project")
    monkeypatch.setenv("LOUPE_DEVICE", "cpu")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(root)
    return ProjectPaths(root)


def run(project, base, **settings):
    write_params(project.root, base=base, train=settings)
    train(load_params(project.root / "params.yaml"), project, WorkStore(project.work))
    return read_record(project.checkpoints / "manifest.json", CheckpointsManifest, made_by="train")


def test_it_leaves_every_checkpoint_its_manifest_and_the_curve(project, tiny_base_model):
    manifest = run(project, tiny_base_model, max_steps=5, checkpoint_every=2)

    assert [checkpoint.step for checkpoint in manifest.checkpoints] == [2, 4, 5]
    with (project.metrics / "train.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5]
    for checkpoint in manifest.checkpoints:
        state, config = read_adapter(project.checkpoints / checkpoint.folder)
        assert (config.rank, config.alpha) == (checkpoint.rank, checkpoint.alpha) == (2, 4)
        assert any(bool(value.any()) for key, value in state.items() if ".lora_B." in key)
        assert float(rows[checkpoint.step - 1]["loss_smoothed"]) == checkpoint.train_loss


def test_every_knob_of_the_adapter_reaches_the_checkpoint_and_its_description(project, tiny_base_model):
    knobs = {"use_dora": True, "use_rslora": True, "target_modules": "qv", "lora_dropout": 0.1, "ema_decay": 0.9}
    short = {"max_steps": 2, "lr_warmup_steps": 1, "gradient_checkpointing": "always"}
    manifest = run(project, tiny_base_model, **short, **knobs)

    (checkpoint,) = manifest.checkpoints
    state, config = read_adapter(project.checkpoints / checkpoint.folder)
    description = json.loads((project.checkpoints / checkpoint.folder / "checkpoint.json").read_text())
    assert (config.use_dora, config.use_rslora, config.target_modules) == (True, True, ("to_q", "to_v"))
    assert checkpoint.target_modules == ("to_q", "to_v")
    assert any(key.endswith(".lora_magnitude_vector") for key in state)
    assert description["settings"]["ema_decay"] == 0.9
    assert description["run_fingerprint"] == manifest.fingerprint


def test_random_flips_need_mirrored_photos_and_train_another_adapter(project, tiny_base_model, tmp_path):
    short = {"max_steps": 2, "checkpoint_every": 2, "lr_warmup_steps": 1}
    plain = run(ProjectPaths(shutil.copytree(project.root, tmp_path / "plain")), tiny_base_model, **short)
    with pytest.raises(PipelineError, match="encoded without mirrored photos"):
        run(project, tiny_base_model, **short, random_flip=True)
    encode(load_params(project.root / "params.yaml"), project, WorkStore(project.work))

    flipped = run(project, tiny_base_model, **short, random_flip=True)

    assert flipped.checkpoints[0].sha256 != plain.checkpoints[0].sha256


def test_raising_max_steps_goes_on_and_says_so(project, tmp_path, tiny_base_model, capsys):
    at_once = ProjectPaths(shutil.copytree(project.root, tmp_path / "at once"))
    expected = run(at_once, tiny_base_model, max_steps=6)
    run(project, tiny_base_model, max_steps=4)
    capsys.readouterr()

    prolonged = run(project, tiny_base_model, max_steps=6)

    printed = capsys.readouterr().out
    assert "resumed from step 4" in printed
    assert "train: computed=2 reused=4" in printed
    assert prolonged == expected
    assert (project.metrics / "train.csv").read_bytes() == (at_once.metrics / "train.csv").read_bytes()


def test_the_same_run_again_computes_nothing(project, tiny_base_model, capsys):
    first = run(project, tiny_base_model)
    shutil.rmtree(project.checkpoints)
    shutil.rmtree(project.metrics)

    assert run(project, tiny_base_model) == first
    assert "train: computed=0 reused=6" in capsys.readouterr().out
    assert len((project.metrics / "train.csv").read_text().splitlines()) == 7


def test_more_examples_per_step_than_there_are(project, tiny_base_model):
    one_step = {"max_steps": 1, "checkpoint_every": 1, "lr_warmup_steps": 0}
    manifest = run(project, tiny_base_model, batch_size=8, gradient_accumulation_steps=2, **one_step)

    assert manifest.effective_batch_size == 16


def test_a_full_memory_is_a_sentence_with_the_setting_that_takes_less(project, tiny_base_model, monkeypatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Trainer, "_backward", full)
    with pytest.raises(DeviceFull, match=r"The memory of cpu is full.*estimated to take.*takes less: data\.resolution"):
        run(project, tiny_base_model, max_steps=4, checkpoint_every=2)
    assert not (project.checkpoints / "manifest.json").exists()


def test_trackers_are_left_also_when_training_stops(project, tiny_base_model, monkeypatch):
    left = []
    monkeypatch.setattr(Trackers, "__exit__", lambda self, kind, *_: left.append(kind))
    monkeypatch.setattr(Trainer, "_backward", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(PipelineError, match="Training stopped at step 1"):
        run(project, tiny_base_model, max_steps=4, checkpoint_every=2)
    assert left == [PipelineError]


def test_a_loss_that_is_not_finite_ends_the_command_with_a_sentence_and_exit_code_2(project, tiny_base_model):
    """An absurd step size, all else as it is: the second loss is not finite."""
    absurd = {"learning_rate": 10.0, "alpha": 10_000.0, "lr_warmup_steps": 0, "max_grad_norm": 1e30}
    write_params(project.root, base=tiny_base_model, train={"max_steps": 40, "checkpoint_every": 40, **absurd})
    command = [sys.executable, "-m", "stages.train"]
    done = subprocess.run(
        command, cwd=project.root, env=stage_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert "error: Training stopped at step" in done.stderr
    assert "Lower train.learning_rate" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project.checkpoints / "manifest.json").exists()


def test_latents_of_another_base_model_are_refused(project, tmp_path):
    with pytest.raises(PipelineError, match="Run: dvc repro encode"):
        run(project, build_tiny_base_model(tmp_path / "other", seed=1))


def test_a_target_module_that_is_not_there_is_refused_before_any_step(project, tiny_base_model):
    with pytest.raises(PipelineError, match="to_qq: no such layer in this UNet; nearest: to_q"):
        run(project, tiny_base_model, target_modules=["to_qq"])


def test_a_loss_that_is_not_finite_keeps_the_checkpoints_before_it(project, tiny_base_model, monkeypatch):
    from loupe.diffusion import training

    original = training.Trainer._backward

    def poisoned(trainer, step, part):
        loss = original(trainer, step, part)
        return loss * float("nan") if step == 4 else loss

    monkeypatch.setattr(training.Trainer, "_backward", poisoned)
    with pytest.raises(PipelineError, match="Training stopped at step 4: loss nan"):
        run(project, tiny_base_model)

    assert json.loads((project.checkpoints / "step-000002" / "checkpoint.json").read_text())["step"] == 2
    assert not (project.checkpoints / "step-000004").exists()
    assert not (project.checkpoints / "manifest.json").exists()
