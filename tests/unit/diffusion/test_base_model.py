import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from loupe.diffusion.base_model import base_model_info, base_model_on_disk, resolve_base_model
from loupe.diffusion.model_loading import load_text_encoder, load_unet, load_vae
from loupe.errors import PipelineError
from tests.tiny_models import TINY_SIDE_PX, build_tiny_base_model

REVISION = "0123456789abcdef0123456789abcdef01234567"
NOWHERE = Path("nowhere")


@pytest.fixture
def base_copy(tiny_base_model, tmp_path):
    return Path(shutil.copytree(tiny_base_model, tmp_path / "copy"))


def edit_config(folder: Path, file: str, **changes) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **changes}))


def test_demo_and_a_folder_go_the_same_way(tiny_base_model):
    assert resolve_base_model("demo", None, demo_folder=tiny_base_model.parent) == tiny_base_model
    assert resolve_base_model(str(tiny_base_model), None, demo_folder=NOWHERE) == tiny_base_model


def test_a_revision_of_a_folder_is_refused(tiny_base_model):
    with pytest.raises(PipelineError, match=r"set model\.revision to null"):
        resolve_base_model(str(tiny_base_model), REVISION, demo_folder=NOWHERE)


def test_all_missing_parts_are_listed_at_once(base_copy):
    shutil.rmtree(base_copy / "vae")
    (base_copy / "tokenizer" / "tokenizer.json").unlink()

    with pytest.raises(PipelineError) as caught:
        resolve_base_model(str(base_copy), None, demo_folder=NOWHERE)

    for part in ("vae/config.json", "vae/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json", "merges.txt"):
        assert part in str(caught.value)
    assert "unet" not in str(caught.value)


def test_a_pickle_is_refused_with_the_reason(base_copy):
    weights = base_copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))

    with pytest.raises(PipelineError, match="can run any code"):
        resolve_base_model(str(base_copy), None, demo_folder=NOWHERE)


def test_weights_that_are_cut_short_are_refused(base_copy):
    weights = base_copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    with pytest.raises(PipelineError, match=r"unet/diffusion_pytorch_model\.safetensors is damaged or cut short"):
        resolve_base_model(str(base_copy), None, demo_folder=NOWHERE)


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("unet/config.json", {"in_channels": 9}, "inpainting"),
        ("vae/config.json", {"scaling_factor": 0}, "scaling_factor is 0; expected a number above 0"),
        ("vae/config.json", {"scaling_factor": None}, "scaling_factor is None"),
        ("vae/config.json", {"scaling_factor": "x"}, "scaling_factor is 'x'"),
        ("vae/config.json", {"shift_factor": 0.1}, "latents are moved by shift_factor"),
        ("vae/config.json", {"latents_mean": [0.1], "latents_std": [1.0]}, "by latents_mean, latents_std"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 4}, "num_train_timesteps is 4; expected a whole"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": None}, "num_train_timesteps is None"),
        ("scheduler/scheduler_config.json", {"beta_end": 1.5}, "beta_start and beta_end are .* and 1.5; expected"),
        ("scheduler/scheduler_config.json", {"beta_start": "x"}, "beta_start and beta_end are 'x' and"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "SDXL"),
        ("unet/config.json", {"cross_attention_dim": 32}, "attends to vectors of 32"),
        ("vae/config.json", {"_class_name": "VQModel"}, "needs a UNet2DConditionModel and an AutoencoderKL"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "epsilon, v_prediction"),
        ("scheduler/scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "has no betas"),
        ("scheduler/scheduler_config.json", {"beta_start": None}, "has no betas"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "cosine"}, "beta_schedule is 'cosine'; supported: lin"),
        ("text_encoder/config.json", {"model_type": "t5"}, "is of the kind 't5'; expected CLIP's"),
        ("text_encoder/config.json", {"hidden_size": None, "text_config": None}, "the text encoder gives None"),
        ("unet/config.json", {"sample_size": [8, 8]}, r"sample_size is \[8, 8\]; expected one whole number"),
        ("unet/config.json", {"sample_size": None}, "sample_size is None"),
        ("unet/config.json", {"class_embed_type": "timestep"}, r"wants more than .* \(class_embed_type\)"),
        ("unet/config.json", {"num_class_embeds": 10, "encoder_hid_dim": 8}, r"\(num_class_embeds, encoder_hid_dim\)"),
        ("unet/config.json", {"block_out_channels": [8]}, r"unet/config\.json describes no model that can be built"),
        (
            "text_encoder/config.json",
            {"vocab_size": 10},
            r"another shape .*token_embedding\.weight .* instead of \[10, 16\]",
        ),
        ("text_encoder/config.json", {"architectures": ["T5EncoderModel"]}, "architectures are .*T5EncoderModel"),
        ("scheduler/scheduler_config.json", {"beta_end": None}, "has no betas"),
        ("scheduler/scheduler_config.json", {"use_flow_sigmas": True}, "has no betas"),
        ("vae/config.json", {"block_out_channels": None}, "block_out_channels is None; expected a list"),
        ("vae/config.json", {"block_out_channels": [8, 8, 8]}, "makes 4 px of a latent; supported: 8"),
    ],
)
def test_a_model_of_another_shape_is_refused(base_copy, file, changes, words):
    edit_config(base_copy, file, **changes)

    with pytest.raises(PipelineError, match=words):
        resolve_base_model(str(base_copy), None, demo_folder=NOWHERE)


def test_a_name_that_is_neither_folder_nor_hub_id_is_refused():
    with pytest.raises(PipelineError, match="no folder 'models/sd/15'"):
        resolve_base_model("models/sd/15", None, demo_folder=NOWHERE)


@pytest.mark.parametrize("revision", [None, "main", REVISION[:8]])
def test_a_hub_id_needs_a_full_commit_hash(revision):
    with pytest.raises(PipelineError, match="40 hex digits"):
        resolve_base_model("owner/model", revision, demo_folder=NOWHERE)


@pytest.mark.parametrize("name", ["./sd15", "a--b/c", "models/sd15."])
def test_a_name_that_only_looks_like_a_hub_id_is_refused(name):
    with pytest.raises(PipelineError, match=r"there is no folder .* here, and it cannot be a Hub id"):
        resolve_base_model(name, REVISION, demo_folder=NOWHERE)


def test_a_mistyped_folder_that_looks_like_a_hub_id_is_told_as_both():
    with pytest.raises(PipelineError, match=r"there is no folder 'models/sd15' here\. If it is meant as a Hub id"):
        resolve_base_model("models/sd15", None, demo_folder=NOWHERE)


def test_a_folder_that_is_absent_is_named_also_where_the_hub_cannot_be_reached(no_network):
    with pytest.raises(PipelineError, match=r"there is no folder 'models/sd15' here; as a Hub id it is not in"):
        resolve_base_model("models/sd15", REVISION, demo_folder=NOWHERE)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_a_cache_that_cannot_be_written_is_no_lost_network(monkeypatch, tmp_path, number):
    import huggingface_hub

    def fails(*_args, local_files_only=False, **_options):
        if local_files_only:
            raise LocalEntryNotFoundError("not there")
        raise OSError(number, os.strerror(number), "blobs/x")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_args, **_options: None)
    with pytest.raises(PipelineError) as caught:
        resolve_base_model("owner/model", REVISION, demo_folder=NOWHERE)
    assert os.strerror(number) in str(caught.value)
    assert "HF_HOME" in str(caught.value)
    assert "reached" not in str(caught.value)


def test_looking_what_is_on_disk_downloads_nothing(monkeypatch, tmp_path):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda _self, name, **options: asked.append(name))
    monkeypatch.setattr("loupe.diffusion.base_model.download", lambda *_: pytest.fail("a download was begun"))
    assert base_model_on_disk("owner/model", REVISION, demo_folder=NOWHERE) is None
    assert asked == ["owner/model"]


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    import huggingface_hub

    def unreachable(*_args, **_options):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)


def test_without_network_the_message_says_what_to_download(no_network, capsys):
    with pytest.raises(PipelineError) as caught:
        resolve_base_model("runwayml/stable-diffusion-v1-5", REVISION, demo_folder=NOWHERE)

    new_name = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert f"hf download {new_name} --revision {REVISION}" in str(caught.value)
    assert "model.base" in str(caught.value)
    assert f"using {new_name}" in capsys.readouterr().out


def test_a_cached_hub_model_needs_no_network(no_network, tiny_base_model, tmp_path):
    snapshot = tmp_path / "cache" / "models--owner--model" / "snapshots" / REVISION
    shutil.copytree(tiny_base_model, snapshot)

    assert resolve_base_model("owner/model", REVISION, demo_folder=NOWHERE).samefile(snapshot)


def test_the_hash_is_of_weights_and_configurations_alone(tiny_base_model, base_copy):
    original = base_model_info(tiny_base_model, name="a", revision=None)
    (base_copy / "README.md").write_text("not a weight")
    assert base_model_info(base_copy, name="b", revision=None).sha256 == original.sha256

    edit_config(base_copy, "scheduler/scheduler_config.json", beta_end=0.02)
    assert base_model_info(base_copy, name="b", revision=None).sha256 != original.sha256


def test_the_information_comes_from_the_configurations(tiny_base_model):
    info = base_model_info(tiny_base_model, name="tiny", revision=None)

    assert info.sample_size_px == TINY_SIDE_PX
    assert (info.latent_channels, info.scaling_factor, info.prediction_type) == (4, 0.18215, "epsilon")


@pytest.mark.parametrize("load", [load_unet, load_vae, load_text_encoder])
def test_half_precision_weights_come_up_frozen_in_the_asked_dtype(tmp_path_factory, load):
    stored = build_tiny_base_model(tmp_path_factory.getbasetemp() / "half", half_precision=True)

    model = load(stored, device="cpu", dtype=torch.float32)

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


def test_fp16_file_names_are_found(base_copy):
    weights = base_copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))

    folder = resolve_base_model(str(base_copy), None, demo_folder=NOWHERE)

    assert load_unet(folder, device="cpu", dtype=torch.float32).dtype is torch.float32


def test_settings_of_the_tokenizer_that_were_cut_short_are_named(base_copy):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base_copy / "tokenizer" / name).write_text('{"cut": ')
    with pytest.raises(PipelineError) as caught:
        resolve_base_model(str(base_copy), None, demo_folder=NOWHERE)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert f"tokenizer/{name} is damaged or cut short" in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "null"])
def test_a_configuration_that_holds_no_settings_is_refused(base_copy, content):
    (base_copy / "unet" / "config.json").write_text(content)
    with pytest.raises(PipelineError, match=r"unet/config\.json holds no settings"):
        resolve_base_model(str(base_copy), None, demo_folder=NOWHERE)


PARTS = {"unet": load_unet, "vae": load_vae, "text_encoder": load_text_encoder}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", ["lacking", "renamed", "of another shape"])
def test_weights_that_are_not_those_of_the_configuration_are_refused(base_copy, part, damage):
    """A text encoder would get random numbers for what it lacks, and train on other ones in every run."""
    file = next((base_copy / part).glob("*.safetensors"))
    tensors = load_file(file)
    last = sorted(tensors)[-1]
    if damage == "lacking":
        del tensors[last]
    elif damage == "renamed":
        tensors = {f"other.{name}": tensor for name, tensor in tensors.items()}
    else:
        tensors[last] = torch.cat([tensors[last], tensors[last]])
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(PipelineError, match=rf"the weights of {part} are not those that {part}/config\.json describes"):
        PARTS[part](base_copy, device="cpu", dtype=torch.float32)
    words = "tensors of another shape" if damage == "of another shape" else r"lacks \d+ tensors of"
    with pytest.raises(PipelineError, match=rf"{part}/{file.name} .*{words}"):
        resolve_base_model(str(base_copy), None, demo_folder=NOWHERE)


def test_damage_in_several_parts_is_told_at_once(base_copy):
    for part in PARTS:
        file = next((base_copy / part).glob("*.safetensors"))
        tensors = load_file(file)
        tensors.pop(min(tensors))
        save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(PipelineError, match=r"3 problems") as caught:
        resolve_base_model(str(base_copy), None, demo_folder=NOWHERE)
    assert str(caught.value).count("lacks 1 tensors of the") == 3


def test_names_of_older_libraries_are_accepted_and_load_the_same(tiny_base_model, base_copy):
    """Stable Diffusion 1.5 as published has these: a prefix and positions of CLIP, older names of the attention."""
    older = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
    file = base_copy / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    for name in [name for name in tensors if "attentions" in name]:
        new, old = next(((n, o) for n, o in older.items() if n in name), ("", ""))
        tensors[name.replace(new, old)] = tensors.pop(name)
    assert any(".query." in name for name in tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    file = base_copy / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{name}": tensor for name, tensor in load_file(file).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(tensors, file, metadata={"format": "pt"})

    folder = resolve_base_model(str(base_copy), None, demo_folder=NOWHERE)

    for load in (load_vae, load_text_encoder):
        now, before = (load(each, device="cpu", dtype=torch.float32) for each in (folder, tiny_base_model))
        torch.testing.assert_close(dict(now.state_dict()), dict(before.state_dict()), rtol=0, atol=0)


def test_all_configurations_that_hold_no_settings_are_told_at_once(base_copy):
    for part in ("unet", "vae"):
        (base_copy / part / "config.json").write_text("[]")
    with pytest.raises(PipelineError, match=r"(?s)unet/config\.json holds no settings.*vae/config\.json holds no"):
        resolve_base_model(str(base_copy), None, demo_folder=NOWHERE)
