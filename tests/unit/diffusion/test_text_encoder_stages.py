"""The stages with train.train_text_encoder on and off: what each leaves, what it says, and that a kill is not felt."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from loupe.atomic_io import read_record, write_record
from loupe.diffusion.adapter import load_adapter, read_adapter
from loupe.diffusion.model_loading import load_noise_scheduler, load_text_encoder, load_tokenizer, load_unet, load_vae
from loupe.diffusion.sampling import DrawingModel, PictureRequest, SamplingSettings, embed_texts, sample_pictures
from loupe.diffusion.train_run import run_parts
from loupe.evaluation_records import Selection
from loupe.params import load_params
from loupe.paths import ProjectPaths
from loupe.records import CheckpointsManifest, SamplesManifest
from loupe.workstore import WorkStore
from stages.export import export
from stages.generate import generate
from stages.train import train
from tests.tiny_models import TINY_SIDE_PX
from tests.unit.diffusion.tiny_project import stage_environment, write_encoded_project, write_params
from tests.unit.diffusion.tiny_training import CPU, tiny_examples, tiny_settings

ON = {"train_text_encoder": True, "text_encoder_learning_rate": 0.005, "max_steps": 4, "checkpoint_every": 2}
GENERATE = {"num_inference_steps": 2, "val_captions": 1, "seeds_per_prompt": 1, "batch_size": 4}
ON_CPU = {"device": "cpu", "dtype": torch.float32}


@pytest.fixture(autouse=True)
def _as_dvc_runs_it(monkeypatch):
    monkeypatch.setenv("LOUPE_DEVICE", "cpu")
    monkeypatch.delenv("DVC_ROOT", raising=False)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, tiny_base_model):
    return write_encoded_project(tmp_path_factory.mktemp("text") / "project", base=tiny_base_model)


@pytest.fixture(scope="module")
def project(encoded, tiny_base_model, tmp_path_factory) -> ProjectPaths:
    """A run with a trained text encoder, drawn and exported; nobody changes it."""
    root = shutil.copytree(encoded, tmp_path_factory.mktemp("on") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOUPE_DEVICE", "cpu")
        _run_stages(root, tiny_base_model, patch, **ON)
    return ProjectPaths(root)


def _run_stages(root: Path, base: Path, patch: pytest.MonkeyPatch, **settings) -> None:
    patch.chdir(root)
    write_params(root, base=base, train=settings)
    params = load_params(root / "params.yaml")
    params = params.model_copy(update={"generate": params.generate.model_copy(update=GENERATE)})
    paths, store = ProjectPaths(root), WorkStore(root / ".work")
    train(params, paths, store)
    generate(params, paths, store)
    selection = Selection(verdict="selected", step=4, reason="The best.", gates_failed={}, tied_steps=(4,))
    write_record(paths.metrics / "selection.json", selection)
    export(params, paths, store)


def _manifest(paths: ProjectPaths) -> CheckpointsManifest:
    return read_record(paths.checkpoints / "manifest.json", CheckpointsManifest, made_by="train")


# --- on --------------------------------------------------------------------------------------------------------------


def test_each_checkpoint_holds_both_adapters_and_says_so(project):
    manifest = _manifest(project)
    assert [info.step for info in manifest.checkpoints] == [2, 4]
    for info in manifest.checkpoints:
        folder = project.checkpoints / info.folder
        file = folder / "text_encoder" / "adapter_model.safetensors"
        assert info.text_encoder_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        state, config = read_adapter(folder / "text_encoder")
        assert (config.rank, config.alpha) == (info.rank, info.alpha) == (2, 4)
        assert config.target_modules == ("k_proj", "out_proj", "q_proj", "v_proj")
        assert len(state) == 8
        assert all(bool(tensor.any()) for key, tensor in state.items() if "lora_B" in key)
        assert not any("text_encoder" in key or "self_attn" in key for key in read_adapter(folder)[0])
        description = json.loads((folder / "checkpoint.json").read_text())
        assert description["settings"]["train_text_encoder"] is True
        assert description["settings"]["text_encoder_learning_rate"] == 0.005
        assert description["text_encoder_sha256"] == info.text_encoder_sha256
        assert "transformers" in description["library_versions"]


def test_the_checkpoint_is_read_by_peft_itself(project, tiny_base_model):
    from peft import PeftModel

    folder = project.checkpoints / "step-000004" / "text_encoder"
    ids = torch.arange(77)[None]
    ours = load_text_encoder(tiny_base_model, **ON_CPU)
    load_adapter(ours, folder)
    theirs = PeftModel.from_pretrained(load_text_encoder(tiny_base_model, **ON_CPU), folder)
    with torch.inference_mode():
        expected = ours(ids).last_hidden_state
        assert torch.allclose(theirs(ids).last_hidden_state, expected, atol=1e-5)
        assert not torch.allclose(
            load_text_encoder(tiny_base_model, **ON_CPU)(ids).last_hidden_state, expected, atol=1e-2
        )


def test_the_pictures_are_those_of_both_adapters(project, tiny_base_model):
    manifest = read_record(project.samples / "manifest.json", SamplesManifest, made_by="generate")
    prompt, sample = manifest.prompts[0], next(s for s in manifest.samples if s.step == 4)
    folder = project.checkpoints / "step-000004"
    unet, text_encoder = load_unet(tiny_base_model, **ON_CPU), load_text_encoder(tiny_base_model, **ON_CPU)
    load_adapter(unet, folder)
    load_adapter(text_encoder, folder / "text_encoder")
    model = DrawingModel(unet, load_vae(tiny_base_model, **ON_CPU), load_noise_scheduler(tiny_base_model), CPU)
    embeddings = embed_texts([prompt.text, ""], tokenizer=load_tokenizer(tiny_base_model), text_encoder=text_encoder)
    settings = SamplingSettings(TINY_SIDE_PX, TINY_SIDE_PX, manifest.guidance_scale, 2, "")
    request = PictureRequest(prompt.text, sample.seed)
    expected = next(sample_pictures(model, [request], embeddings=embeddings, settings=settings, batch_size=1))
    np.testing.assert_array_equal(np.array(Image.open(project.samples / sample.file)), expected.pixels)


def test_the_export_holds_both_and_the_card_says_so(project):
    tensors = load_file(project.export / "casual-shoes.safetensors")
    alphas = {float(t) for name, t in tensors.items() if name.startswith("lora_te_text_model_") and "alpha" in name}
    assert alphas == {4.0}
    card = (project.export / "README.md").read_text()
    assert "of the UNet and k_proj, out_proj, q_proj, v_proj of the text encoder; float32" in card
    assert "strength_model 1, strength_clip 1" in card


def test_the_same_run_again_computes_nothing(project, tiny_base_model, tmp_path, monkeypatch, capsys):
    root = shutil.copytree(project.root, tmp_path / "again")
    _run_stages(root, tiny_base_model, monkeypatch, **ON)
    said = capsys.readouterr().out
    assert "train: computed=0 reused=4" in said
    assert "generate: computed=0 " in said
    for folder in ("checkpoints", "samples", "export"):
        for file in (project.root / "data" / folder).rglob("*"):
            assert file.is_dir() or (root / file.relative_to(project.root)).read_bytes() == file.read_bytes()


def test_switching_it_on_trains_anew_and_says_why(encoded, tiny_base_model, tmp_path, monkeypatch, capsys):
    root = shutil.copytree(encoded, tmp_path / "switched")
    short = {"max_steps": 1, "checkpoint_every": 1, "lr_warmup_steps": 0}
    monkeypatch.chdir(root)
    for on in (False, True):
        write_params(root, base=tiny_base_model, train=short | {"train_text_encoder": on})
        train(load_params(root / "params.yaml"), ProjectPaths(root), WorkStore(root / ".work"))
    said = capsys.readouterr().out
    assert "this decides the weights and has changed: " in said
    assert "train.train_text_encoder: None -> True" in said


KILLS = [["step 3", "write 20"]]


def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(encoded, tiny_base_model, tmp_path):
    root = shutil.copytree(encoded, tmp_path / "undisturbed")
    write_params(root, base=tiny_base_model, train={**ON, "batch_size": 2, "ema_decay": 0.9})
    for number in range(len(KILLS)):
        shutil.copytree(root, tmp_path / "disturbed" / str(number))
    command = [sys.executable, "-m", "tests.unit.diffusion.kill_driver", str(root), str(tmp_path / "disturbed")]
    done = subprocess.run(
        [*command, json.dumps(KILLS)], env=stage_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("REPORT "))[7:])
    undisturbed = report["undisturbed"]["files"]
    assert "data/checkpoints/step-000004/text_encoder/adapter_model.safetensors" in undisturbed
    for moments in KILLS:
        outcome = report[" then ".join(moments)]
        assert outcome["signals"] == [-signal.SIGKILL] * len(moments) + [0]
        assert outcome["files"] == undisturbed


# --- off -------------------------------------------------------------------------------------------------------------


def test_off_leaves_no_trace_of_it(encoded, tiny_base_model, tmp_path, monkeypatch):
    root = shutil.copytree(encoded, tmp_path / "off")
    _run_stages(root, tiny_base_model, monkeypatch, max_steps=4, checkpoint_every=2)
    paths = ProjectPaths(root)
    written = [file for folder in (paths.checkpoints, paths.export) for file in folder.rglob("*") if file.is_file()]
    assert written
    assert not [file for file in written if "text_encoder" in str(file.relative_to(root))]
    for file in [*paths.checkpoints.rglob("*.json"), *paths.export.rglob("*.json"), *paths.export.rglob("*.md")]:
        assert "text_encoder" not in file.read_text()
        assert "text encoder" not in file.read_text()
    assert not [name for name in load_file(paths.export / "casual-shoes.safetensors") if name.startswith("lora_te")]


def test_off_its_knobs_are_not_in_the_key_of_a_run():
    """A run that was finished before there were such knobs is still found."""

    def parts(**knobs):
        from loupe.diffusion.adapter import AdapterConfig

        adapter = AdapterConfig(2, 4.0, ("to_q",), "tiny")
        settings = tiny_settings(**knobs)
        return run_parts(settings, adapter, examples=tiny_examples(2), base_sha256="0" * 64, policy=CPU)

    off, on = parts(), parts(train_text_encoder=True)
    assert off["train"].keys() == {
        "adam_betas", "adam_epsilon", "batch_size", "caption_dropout", "compile", "ema_decay",
        "gradient_accumulation_steps", "learning_rate", "lora_dropout", "lr_scheduler", "lr_warmup_steps",
        "max_grad_norm", "noise_offset", "optimizer", "processes", "random_flip", "seed", "snr_gamma",
        "weight_decay",
    }  # fmt: skip
    assert off["adapter"].keys() == {"alpha", "rank", "target_modules", "use_dora", "use_rslora"}
    assert off["versions"].keys() == {"torch", "diffusers", "peft"}
    assert on["train"].keys() - off["train"].keys() == {"train_text_encoder", "text_encoder_learning_rate"}
    assert on["adapter"]["text_encoder"] == ["k_proj", "out_proj", "q_proj", "v_proj"]
