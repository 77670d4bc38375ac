"""The text encoder's adapter in the exported files: under every reader's names, at its true strength, merged."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from loupe.diffusion.adapter import AdapterConfig, adapter_state, add_adapter, load_adapter, read_adapter
from loupe.diffusion.export_lora import DIFFUSERS_FILE, ExportLabels, export_adapter, text_model_state
from loupe.diffusion.model_loading import load_text_encoder, load_tokenizer, load_unet
from loupe.diffusion.text import embed_all
from loupe.diffusion.text_adapter import TEXT_FOLDER, save_adapters
from tests.unit.diffusion.tiny_checkpoints import ALPHA, RANK, made_up_text_adapter, write_checkpoints

PROMPT = "a photo of red shoes"
FILES = ["shoes.safetensors", f"shoes-diffusers/{DIFFUSERS_FILE}"]
pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")


@pytest.fixture(scope="module")
def source(tiny_base_model, tmp_path_factory):
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"), tiny_base_model, (2,), with_text=True)


@pytest.fixture(scope="module")
def exported(source, tmp_path_factory):
    output = tmp_path_factory.mktemp("export")
    labels = ExportLabels("shoes", 2, "a photo of shoes", source.base_model, 64, 10)
    export_adapter(
        source.adapter_folder(2), text_adapter_folder=source.text_adapter_folder(2), base_folder=source.base_folder,
        labels=labels, full_pipeline=True, output=output,
    )  # fmt: skip
    return output


@pytest.fixture(scope="module")
def trained(source):
    """The vectors that the checkpoint was judged by; the base model's are far from them."""
    text_encoder = load_text_encoder(source.base_folder, device="cpu", dtype=torch.float32)
    plain = _vectors(source, text_encoder)
    load_adapter(text_encoder, source.text_adapter_folder(2))
    adapted = _vectors(source, text_encoder)
    assert (adapted - plain).abs().max() > 0.1
    return adapted


def _vectors(source, text_encoder):
    return embed_all([PROMPT], tokenizer=load_tokenizer(source.base_folder), text_encoder=text_encoder)[0]


@pytest.mark.parametrize("file", FILES)
def test_the_stock_pipeline_gives_each_file_the_vectors_it_was_judged_by(exported, source, trained, file):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(source.base_folder, safety_checker=None, feature_extractor=None)
    path = exported / file
    pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name="shoes")
    torch.testing.assert_close(_vectors(source, pipeline.text_encoder), trained, rtol=0, atol=1e-5)
    layers = [m for m in pipeline.text_encoder.modules() if getattr(m, "lora_A", None)]
    assert len(layers) == 4
    assert {layer.scaling["shoes"] for layer in layers} == {ALPHA / RANK}


def test_the_merged_pipeline_needs_no_lora(exported, source, trained):
    from diffusers import StableDiffusionPipeline

    merged = StableDiffusionPipeline.from_pretrained(exported / "shoes-pipeline")
    torch.testing.assert_close(_vectors(source, merged.text_encoder), trained, rtol=0, atol=1e-5)


def test_kohya_names_are_those_of_stable_diffusion_1_5_with_the_true_alpha(exported, source):
    """`lora_te1_` would be Stable Diffusion XL's; sd-scripts and ComfyUI look for `lora_te_text_model_` here."""
    tensors = load_file(exported / "shoes.safetensors")
    layers = [f"lora_te_text_model_encoder_layers_0_self_attn_{name}_proj" for name in ("k", "out", "q", "v")]
    of_text = {name: tensor for name, tensor in tensors.items() if name.startswith("lora_te")}
    endings = ("lora_down.weight", "lora_up.weight", "alpha")
    assert set(of_text) == {f"{layer}.{end}" for layer in layers for end in endings}
    assert {float(of_text[f"{layer}.alpha"]) for layer in layers} == {ALPHA}
    state, _ = read_adapter(source.text_adapter_folder(2))
    named = text_model_state(state)
    path = "text_model.encoder.layers.0.self_attn.out_proj"
    assert torch.equal(of_text[f"{layers[1]}.lora_up.weight"], named[f"{path}.lora_B.weight"])
    assert text_model_state(named) == named  # where transformers has that level itself, it is not added twice


def test_the_diffusers_header_holds_the_strength_of_both_models(exported):
    with safe_open(exported / FILES[1], framework="pt") as file:
        header = json.loads(file.metadata()["lora_adapter_metadata"])
        names = list(file.keys())
    assert header["unet.lora_alpha"] == header["text_encoder.lora_alpha"] == ALPHA
    assert header["text_encoder.target_modules"] == ["k_proj", "out_proj", "q_proj", "v_proj"]
    assert "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight" in names


def test_a_dora_of_the_text_encoder_is_exact_in_the_diffusers_form_and_merged(source, tmp_path):
    from diffusers import StableDiffusionPipeline

    config = AdapterConfig(RANK, ALPHA, ("to_q",), "tiny", use_dora=True)
    unet = load_unet(source.base_folder, device="cpu", dtype=torch.float32)
    add_adapter(unet, rank=RANK, alpha=ALPHA, target_modules=("to_q",), generator=torch.Generator(), use_dora=True)
    of_text = made_up_text_adapter(source.base_folder, seed=3, use_dora=True)
    assert sum(key.endswith("lora_magnitude_vector") for key in of_text) == 4
    save_adapters(tmp_path, adapter_state(unet) | {f"text_encoder.{key}": t for key, t in of_text.items()}, config)
    labels = ExportLabels("shoes", 2, "", source.base_model, 64, 10)
    export_adapter(
        tmp_path, text_adapter_folder=tmp_path / TEXT_FOLDER, base_folder=source.base_folder, labels=labels,
        full_pipeline=True, output=tmp_path / "out",
    )  # fmt: skip

    text_encoder = load_text_encoder(source.base_folder, device="cpu", dtype=torch.float32)
    load_adapter(text_encoder, tmp_path / TEXT_FOLDER)
    expected = _vectors(source, text_encoder)
    pipeline = StableDiffusionPipeline.from_pretrained(source.base_folder, safety_checker=None, feature_extractor=None)
    pipeline.load_lora_weights(tmp_path / "out" / "shoes-diffusers", weight_name=DIFFUSERS_FILE)
    torch.testing.assert_close(_vectors(source, pipeline.text_encoder), expected, rtol=0, atol=1e-5)
    merged = StableDiffusionPipeline.from_pretrained(tmp_path / "out" / "shoes-pipeline")
    torch.testing.assert_close(_vectors(source, merged.text_encoder), expected, rtol=0, atol=1e-5)
