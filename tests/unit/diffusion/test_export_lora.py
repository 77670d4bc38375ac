import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from loupe.diffusion.adapter import AdapterConfig, load_adapter, read_adapter
from loupe.diffusion.export_lora import (
    DIFFUSERS_FILE,
    ExportLabels,
    export_adapter,
    kohya_metadata,
    kohya_state,
    layer_paths,
    merge_adapter,
)
from loupe.diffusion.model_loading import load_unet
from loupe.diffusion.sampling import initial_latents
from tests.unit.diffusion.tiny_checkpoints import ALPHA, RANK, write_checkpoints

STRENGTH = ALPHA / RANK  # 4: a reader that loses alpha would apply 1


@pytest.fixture(scope="module")
def source(tiny_base_model, tmp_path_factory):
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"), tiny_base_model, (2,))


@pytest.fixture(scope="module")
def labels(source):
    return ExportLabels(
        name="shoes", step=2, trigger="a photo of shoes", base_model=source.base_model, resolution_px=64, n_train=10
    )


@pytest.fixture(scope="module")
def adapter_folder(source):
    return source.checkpoints_folder / "step-000002"


@pytest.fixture(scope="module")
def exported(source, labels, adapter_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("export")
    files = export_adapter(
        adapter_folder, base_folder=source.base_folder, labels=labels, full_pipeline=True, output=output
    )
    return output, files


def _predict(unet):
    """What a UNet predicts for fixed inputs: two that agree on it have the same weights in effect."""
    text = torch.randn(1, 77, unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return unet(initial_latents(3, (4, 8, 8))[None], 500, encoder_hidden_states=text).sample.numpy()


@pytest.fixture(scope="module")
def trained(source, adapter_folder):
    unet = load_unet(source.base_folder, device="cpu", dtype=torch.float32)
    plain = _predict(unet)
    load_adapter(unet, adapter_folder)
    adapted = _predict(unet)
    assert np.abs(adapted - plain).max() > 0.1
    return adapted


@pytest.fixture
def pipeline(source):
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(source.base_folder, safety_checker=None, feature_extractor=None)


# --- other programs read what was trained ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")
@pytest.mark.parametrize("file", ["shoes.safetensors", f"shoes-diffusers/{DIFFUSERS_FILE}"])
def test_the_stock_pipeline_loads_each_file_at_full_strength(exported, pipeline, trained, file):
    path = exported[0] / file
    pipeline.load_lora_weights(path.parent, weight_name=path.name)
    np.testing.assert_allclose(_predict(pipeline.unet), trained, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")
@pytest.mark.parametrize("file", ["shoes.safetensors", f"shoes-diffusers/{DIFFUSERS_FILE}"])
def test_the_stock_pipeline_finds_every_layer_and_the_true_strength(exported, pipeline, adapter_folder, file):
    path = exported[0] / file
    pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name="shoes")
    state, _ = read_adapter(adapter_folder)
    loaded = {name: m for name, m in pipeline.unet.named_modules() if getattr(m, "lora_A", None)}
    assert sorted(loaded) == layer_paths(state)
    for name, layer in loaded.items():
        assert layer.scaling["shoes"] == STRENGTH
        assert torch.equal(layer.lora_A["shoes"].weight, state[f"{name}.lora_A.weight"])
        assert torch.equal(layer.lora_B["shoes"].weight, state[f"{name}.lora_B.weight"])


def test_the_merged_pipeline_needs_no_lora(exported, trained):
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    merged = StableDiffusionPipeline.from_pretrained(exported[0] / "shoes-pipeline")
    np.testing.assert_allclose(_predict(merged.unet), trained, atol=1e-5)
    assert isinstance(merged.scheduler, DPMSolverMultistepScheduler)
    assert merged.safety_checker is None


def test_merging_covers_convolutions_of_any_size():
    layer = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)
    before = layer.weight.detach().clone()
    state = {"0.lora_A.weight": torch.randn(2, 3, 3, 3), "0.lora_B.weight": torch.randn(5, 2, 1, 1)}
    merge_adapter(torch.nn.Sequential(layer), state, scaling=3.0)
    image = torch.randn(1, 3, 4, 4)
    conv = torch.nn.functional.conv2d
    inner = conv(image, state["0.lora_A.weight"], padding=1)
    expected = conv(image, before, padding=1) + 3.0 * conv(inner, state["0.lora_B.weight"])
    torch.testing.assert_close(layer(image).detach(), expected, rtol=1e-4, atol=1e-4)


# --- names and headers -----------------------------------------------------------------------------------------------


def test_kohya_names_are_those_that_automatic1111_and_comfyui_know_for_stable_diffusion_1_5():
    """ComfyUI skips any other name with a warning and draws the base model's picture."""
    expected = {
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
        ),
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0": (
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0"
        ),
        "up_blocks.1.attentions.2.transformer_blocks.0.ff.net.0.proj": (
            "lora_unet_up_blocks_1_attentions_2_transformer_blocks_0_ff_net_0_proj"
        ),
        "up_blocks.3.attentions.1.proj_in": "lora_unet_up_blocks_3_attentions_1_proj_in",
    }
    state = {f"{path}.lora_{ab}.weight": torch.ones(2, 2) for path in expected for ab in "AB"}
    endings = ("lora_down.weight", "lora_up.weight", "alpha")
    assert set(kohya_state(state, AdapterConfig(2, 1.0, (), "x"))) == {
        f"{name}.{end}" for name in expected.values() for end in endings
    }


def test_kohya_carries_the_true_alpha_of_every_layer_as_a_float_scalar(exported, adapter_folder):
    state, _ = read_adapter(adapter_folder)
    tensors = load_file(exported[0] / "shoes.safetensors")
    alphas = [tensor for name, tensor in tensors.items() if name.endswith(".alpha")]
    assert len(alphas) == len(layer_paths(state)) > 0
    assert {(float(a), a.dtype, a.shape) for a in alphas} == {(ALPHA, torch.float32, torch.Size([]))}
    for path in layer_paths(state):
        name = f"lora_unet_{path.replace('.', '_')}"
        down, up = tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"]
        assert down.dtype == up.dtype == torch.float32
        assert len(down) == RANK  # readers take the rank from here
        assert torch.equal(up, state[f"{path}.lora_B.weight"])


def test_the_kohya_header_says_what_it_is_in_strings_only(exported):
    with safe_open(exported[0] / "shoes.safetensors", framework="pt") as file:
        header = file.metadata()
    assert header["ss_network_dim"] == "2"
    assert header["ss_network_alpha"] == "8"
    assert header["ss_network_module"] == "networks.lora"
    assert header["ss_steps"] == "2"
    assert header["ss_sd_model_name"] == "tiny"
    assert header["modelspec.title"] == "shoes"
    assert header["modelspec.trigger_phrase"] == "a photo of shoes"
    assert header["modelspec.prediction_type"] == "epsilon"
    assert json.loads(header["ss_tag_frequency"]) == {"shoes": {"a photo of shoes": 10}}
    assert len(header["sshs_model_hash"]) == 64


def test_a_family_is_named_only_where_it_is_known(labels, adapter_folder):
    _, config = read_adapter(adapter_folder)

    def header(width, prediction_type="epsilon"):
        base = labels.base_model.model_copy(update={"prediction_type": prediction_type})
        changed = ExportLabels("x", 1, "", base, 512, 1)
        return kohya_metadata(config, changed, tensor_sha256="0" * 64, text_width=width)

    first, second, other = header(768), header(1024, "v_prediction"), header(192)
    assert (first["ss_base_model_version"], first["ss_v2"]) == ("sd_v1", "False")
    assert first["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert (second["ss_base_model_version"], second["ss_v2"]) == ("sd_v2", "True")
    assert second["modelspec.architecture"] == "stable-diffusion-v2-768-v/lora"
    assert second["modelspec.prediction_type"] == "v"
    assert not {"ss_base_model_version", "ss_v2", "modelspec.architecture", "modelspec.trigger_phrase"} & set(other)
    assert all(isinstance(value, str) for value in first.values())


def test_the_same_adapter_gives_the_same_bytes(exported, source, labels, adapter_folder, tmp_path):
    again = export_adapter(
        adapter_folder, base_folder=source.base_folder, labels=labels, full_pipeline=False, output=tmp_path
    )
    assert [file for file in exported[1] if file.format != "pipeline"] == again
    assert [file.format for file in again] == ["kohya", "diffusers"]
