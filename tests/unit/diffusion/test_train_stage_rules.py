"""What the train stage does around its steps: what is in memory, what is said first, and what its key covers."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModel

from loupe.diffusion import device, train_memory
from loupe.diffusion.latent_files import Examples, Posteriors
from loupe.diffusion.training import Trainer
from loupe.params import load_params
from loupe.paths import ProjectPaths
from loupe.workstore import WorkStore
from stages.train import train
from tests.unit.diffusion.tiny_project import write_encoded_project, write_params
from tests.unit.diffusion.tiny_training import tiny_examples

TWO_STEPS = {"max_steps": 2, "checkpoint_every": 1, "lr_warmup_steps": 0}


@pytest.fixture
def project(tmp_path: Path, tiny_base_model: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectPaths:
    root = write_encoded_project(tmp_path / "project", base=tiny_base_model)
    monkeypatch.setenv("LOUPE_DEVICE", "cpu")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(root)
    return ProjectPaths(root)


def run(project: ProjectPaths, base: Path, **settings: object) -> None:
    write_params(project.root, base=base, train={**TWO_STEPS, **settings})
    train(load_params(project.root / "params.yaml"), project, WorkStore(project.work))


def idle_models() -> int:
    """Count the models that training has no use for."""
    gc.collect()
    return sum(isinstance(thing, AutoencoderKL | CLIPTextModel) for thing in gc.get_objects())


def test_while_steps_are_made_neither_autoencoder_nor_text_encoder_is_in_memory(
    project: ProjectPaths, tiny_base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Previews load both at every checkpoint, so the second step would see what the first left behind."""
    before, seen, backward = idle_models(), [], Trainer._backward

    def counting(trainer: Trainer, step: int, part: int) -> torch.Tensor:
        seen.append(idle_models() - before)
        return backward(trainer, step, part)

    monkeypatch.setattr(Trainer, "_backward", counting)
    run(project, tiny_base_model, preview_prompts=1)
    assert seen == [0, 0]


def test_memory_is_spoken_of_and_the_device_made_repeatable_before_any_step(
    project: ProjectPaths, tiny_base_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, settle, backward, order = train_memory.plan_memory, device.make_repeatable, Trainer._backward, []

    def stepping(trainer: Trainer, step: int, part: int) -> torch.Tensor:
        order.append("step")
        assert "memory: a note" in capsys.readouterr().out or order.count("step") > 1
        return backward(trainer, step, part)

    monkeypatch.setattr(train_memory, "plan_memory", lambda *a, **o: replace(plan(*a, **o), notes=("memory: a note",)))
    monkeypatch.setattr(device, "make_repeatable", lambda policy: order.append("repeatable") or settle(policy))
    monkeypatch.setattr(Trainer, "_backward", stepping)
    run(project, tiny_base_model)
    assert order[0] == "repeatable"
    assert "step" in order


@pytest.mark.parametrize("name", ["image_ids", "mean", "std", "caption_index", "embeddings", "token_ids", "mirrored"])
def test_whatever_training_sees_of_its_examples_is_in_their_hash(name: str) -> None:
    """Else a run over corrected captions or photos would go on from the states of the old ones."""
    examples = tiny_examples()
    assert replace(examples, **{name: _changed(examples, name)}).sha256() != examples.sha256()


def _changed(examples: Examples, name: str) -> object:
    value = getattr(examples, name)
    if name == "image_ids":
        return (*value[:-1], "another")
    if name == "mirrored":
        return Posteriors(value.mean, _with_another_number(value.std))
    return _with_another_number(value)


def _with_another_number(tensor: torch.Tensor) -> torch.Tensor:
    changed = tensor.clone()
    place = (1,) * tensor.ndim
    changed[place] = 3 if tensor.dtype == torch.int64 and tensor.ndim == 1 else tensor[place] + 1
    return changed
