"""A checkpoint's folder says by itself what it is, in the same bytes every time."""

import json

import pytest

from loupe.atomic_io import read_record, sha256_file
from loupe.diffusion.adapter import AdapterConfig, load_adapter, read_adapter
from loupe.diffusion.base_model import base_model_info
from loupe.diffusion.checkpoint_files import INFO_FILE, CheckpointOrigin, write_checkpoint
from loupe.diffusion.model_loading import load_unet
from loupe.diffusion.train_run import run_parts
from loupe.train_records import CheckpointDescription
from loupe.workstore import fingerprint
from tests.unit.diffusion.test_adapter import predict
from tests.unit.diffusion.test_training import train
from tests.unit.diffusion.tiny_training import ATTENTION, CPU, tiny_examples, tiny_settings, tiny_trainer

KNOBS = {"ema_decay": 0.9, "lora_dropout": 0.2}


@pytest.fixture(scope="module")
def trainer(tiny_base_model):
    trainer = tiny_trainer(tiny_base_model, use_dora=True, use_rslora=True, **KNOBS)
    train(trainer, 2)
    return trainer


@pytest.fixture
def origin(tiny_base_model):
    adapter = AdapterConfig(4, 8.0, ATTENTION, "tiny", use_dora=True, use_rslora=True)
    info = base_model_info(tiny_base_model, name="tiny", revision="0" * 40)
    settings = tiny_settings(**KNOBS)
    parts = run_parts(settings, adapter, examples=tiny_examples(), base_sha256=info.sha256, policy=CPU)
    return CheckpointOrigin(adapter, info, parts, settings.effective_batch_size, "c" * 64)


def test_the_description_says_what_the_adapter_is(trainer, origin, tmp_path):
    state = trainer.state()
    info = write_checkpoint(tmp_path, state, origin)
    described = read_record(tmp_path / "step-000002" / INFO_FILE, CheckpointDescription, made_by="train")

    assert described.model_dump(include=set(info.model_fields)) == info.model_dump()
    assert described.sha256 == sha256_file(tmp_path / "step-000002" / "adapter_model.safetensors")
    assert (described.step, described.rank, described.alpha) == (2, 4, 8.0)
    assert (described.use_dora, described.use_rslora) == (True, True)
    assert (described.base_model.name, described.base_model.revision) == ("tiny", "0" * 40)
    assert described.base_model.sha256 == origin.base_model.sha256
    assert described.examples_sha256 == tiny_examples().sha256()
    assert described.run_fingerprint == fingerprint(origin.parts)
    assert (described.loss, described.train_loss) == (state.rows[-1].loss, state.rows[-1].loss_smoothed)
    assert described.settings["ema_decay"] == 0.9
    assert described.settings["adam_betas"] == (0.9, 0.999)
    assert set(described.library_versions) == {"torch", "diffusers", "peft"}


def test_the_folder_is_the_same_bytes_every_time_and_holds_nothing_to_unpickle(trainer, origin, tmp_path):
    for name in ("first", "second"):
        write_checkpoint(tmp_path / name, trainer.state(), origin)
    first, second = (
        {file.name: file.read_bytes() for file in (tmp_path / name / "step-000002").iterdir()}
        for name in ("first", "second")
    )

    assert first == second
    assert set(first) == {"adapter_model.safetensors", "adapter_config.json", "checkpoint.json"}


def test_the_checkpoint_is_the_averaged_adapter_and_reloads_as_such(trainer, origin, tiny_base_model, tmp_path):
    state = trainer.state()
    write_checkpoint(tmp_path, state, origin)
    tensors, config = read_adapter(tmp_path / "step-000002")
    fresh = load_unet(tiny_base_model, device="cpu", dtype=trainer.unet.dtype)
    load_adapter(fresh, tmp_path / "step-000002")

    assert config == AdapterConfig(4, 8, tuple(sorted(ATTENTION)), "tiny", use_dora=True, use_rslora=True)
    assert all((tensors[key] == state.average[key]).all() for key in state.average)
    trainer.unet.eval()
    with trainer.checkpoint_weights():
        expected = predict(trainer.unet)
    trainer.unet.train()
    assert (predict(fresh) == expected).all()


def test_the_weights_header_alone_restores_kind_and_strength(trainer, origin, tmp_path):
    write_checkpoint(tmp_path, trainer.state(), origin)
    content = (tmp_path / "step-000002" / "adapter_model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    settings = json.loads(header["lora_adapter_metadata"])

    assert (settings["r"], settings["lora_alpha"], settings["use_dora"], settings["use_rslora"]) == (4, 8, True, True)
