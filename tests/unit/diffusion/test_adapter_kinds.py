"""DoRA and rank-stabilised LoRA: a fresh one changes nothing, a saved one is the same one, nothing of it is dropped."""

import math

import pytest
import torch
from safetensors.torch import load_file

from loupe.diffusion.adapter import (
    MAGNITUDE,
    WEIGHTS_FILE,
    AdapterConfig,
    adapter_parameters,
    adapter_state,
    add_adapter,
    load_adapter,
    save_adapter,
    set_adapter_state,
)
from loupe.diffusion.base_model import base_model_info
from loupe.diffusion.export_lora import DIFFUSERS_FILE, ExportLabels, export_adapter, layer_paths
from loupe.diffusion.model_loading import load_noise_scheduler, load_unet, load_vae
from loupe.diffusion.sampling import DrawingModel, PictureRequest, SamplingSettings, sample_pictures
from loupe.diffusion.target_modules import resolve_target_modules, unet_skeleton
from loupe.diffusion.tensor_files import tensor_bytes
from loupe.errors import PipelineError
from tests.tiny_models import TINY_SIDE_PX
from tests.unit.diffusion.test_adapter import predict
from tests.unit.diffusion.tiny_training import CPU

RANK, ALPHA = 4, 6.0
DORA, RSLORA, BOTH = {"use_dora": True}, {"use_rslora": True}, {"use_dora": True, "use_rslora": True}
KINDS = pytest.mark.parametrize("kind", [DORA, RSLORA, BOTH], ids=["dora", "rslora", "both"])
TARGETS = ("to_q", "to_out.0", "conv1", "proj_in")  # linear layers, 3x3 and 1x1 convolutions


def bare(base, dtype=torch.float32):
    return load_unet(base, device="cpu", dtype=dtype)


def add(unet, kind, targets=TARGETS):
    generator = torch.Generator().manual_seed(0)
    add_adapter(unet, rank=RANK, alpha=ALPHA, target_modules=targets, generator=generator, **kind)


def trained(base, kind, targets=TARGETS):
    """A UNet whose adapter has moved away from its start in every part."""
    unet = bare(base)
    add(unet, kind, targets)
    generator = torch.Generator().manual_seed(1)
    state = {
        key: value * (1 + 0.2 * torch.randn(value.shape, generator=generator))
        if ".lora_B." not in key
        else 0.3 * torch.randn(value.shape, generator=generator)
        for key, value in adapter_state(unet).items()
    }
    set_adapter_state(unet, state)
    return unet


def saved(unet, folder, kind, targets=TARGETS):
    save_adapter(folder, adapter_state(unet), AdapterConfig(RANK, ALPHA, targets, "tiny", **kind))
    return folder


def assert_same(theirs, ours, kind):
    """DoRA's layers are peft's own; the others add up in another order (fused_lora.py), so only rounding differs."""
    if "use_dora" in kind:
        assert torch.equal(theirs, ours)
    else:
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_adapter_leaves_the_base_exact_and_is_float32(tiny_base_model, kind, dtype):
    unet = bare(tiny_base_model, dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        before = predict(unet)
        add(unet, kind)

        assert torch.equal(predict(unet), before)
    assert {parameter.dtype for parameter in adapter_parameters(unet).values()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in adapter_parameters(unet).values())


@pytest.mark.parametrize("kind", [{}, DORA], ids=["lora", "dora"])
def test_an_adapter_of_zeros_leaves_the_bases_pictures_byte_identical(tiny_base_model, tmp_path, kind):
    """Read from its file, as generate does; a DoRA's zeros are lengths that are those of the base weights."""
    unet = bare(tiny_base_model)
    add(unet, kind)
    zeros = {key: value if key.endswith(MAGNITUDE) else 0 * value for key, value in adapter_state(unet).items()}
    save_adapter(tmp_path, zeros, AdapterConfig(RANK, ALPHA, TARGETS, "tiny", **kind))
    of_base = picture(tiny_base_model, bare(tiny_base_model))

    adapted = bare(tiny_base_model)
    load_adapter(adapted, tmp_path)
    assert picture(tiny_base_model, adapted).tobytes() == of_base.tobytes()

    load_adapter(adapted := bare(tiny_base_model), saved(trained(tiny_base_model, kind), tmp_path, kind))
    assert picture(tiny_base_model, adapted).tobytes() != of_base.tobytes()


def picture(base, unet):
    model = DrawingModel(
        unet=unet,
        vae=load_vae(base, device="cpu", dtype=torch.float32),
        noise_scheduler=load_noise_scheduler(base),
        policy=CPU,
    )
    text = torch.randn(2, 77, 16, generator=torch.Generator().manual_seed(3))
    settings = SamplingSettings(TINY_SIDE_PX, TINY_SIDE_PX, 2.0, 2, "")
    (drawn,) = sample_pictures(
        model, [PictureRequest("x", 1)], embeddings={"x": text[0], "": text[1]}, settings=settings, batch_size=1
    )
    return drawn.pixels


def test_dora_has_one_length_per_output_row(tiny_base_model):
    unet = bare(tiny_base_model)
    weights = {path: module.weight for path, module in unet.named_modules() if hasattr(module, "weight")}
    add(unet, DORA)
    state = adapter_state(unet)

    assert sorted(key.removesuffix(MAGNITUDE) for key in state if key.endswith(MAGNITUDE)) == layer_paths(state)
    for path in layer_paths(state):
        lengths = weights[path].flatten(1).norm(dim=1)
        assert torch.allclose(state[path + MAGNITUDE].flatten(), lengths, rtol=1e-6)


@KINDS
def test_a_reloaded_adapter_predicts_the_same_bytes(tiny_base_model, tmp_path, kind):
    unet = trained(tiny_base_model, kind)
    fresh = bare(tiny_base_model)

    load_adapter(fresh, saved(unet, tmp_path, kind))

    assert torch.equal(predict(fresh), predict(unet))
    assert not torch.allclose(predict(fresh), predict(bare(tiny_base_model)), atol=1e-2)


@KINDS
def test_peft_reads_the_same_adapter(tiny_base_model, tmp_path, kind):
    from peft import PeftModel

    unet = trained(tiny_base_model, kind)
    theirs = PeftModel.from_pretrained(bare(tiny_base_model), saved(unet, tmp_path, kind))

    assert_same(predict(theirs), predict(unet), kind)


def test_rank_stabilised_strength_is_alpha_over_the_root_of_the_rank(tiny_base_model):
    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    unet = trained(tiny_base_model, RSLORA)
    state, adapted = adapter_state(unet), unet.get_submodule(path)
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    update = x @ state[f"{path}.lora_A.weight"].T @ state[f"{path}.lora_B.weight"].T

    assert torch.allclose(adapted(x) - adapted.base_layer(x), ALPHA / math.sqrt(RANK) * update, atol=1e-5)


def test_doras_lengths_are_those_of_the_adapted_weight(tiny_base_model):
    """Eq. 5 of the paper: W' = m (W + s B A) / |W + s B A|, row by row."""
    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    unet = trained(tiny_base_model, DORA)
    state, adapted = adapter_state(unet), unet.get_submodule(path)
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    a, b, m = (state[path + end] for end in (".lora_A.weight", ".lora_B.weight", MAGNITUDE))
    merged = adapted.base_layer.weight + ALPHA / RANK * b @ a
    merged = merged * (m / merged.norm(dim=1))[:, None]

    assert torch.allclose(merged.norm(dim=1), m)
    assert torch.allclose(adapted(x), x @ merged.T, atol=1e-5)


def test_a_file_that_lost_its_magnitudes_is_refused(tiny_base_model, tmp_path):
    unet = trained(tiny_base_model, DORA)
    file = saved(unet, tmp_path, DORA) / WEIGHTS_FILE
    tensors = {key: value.clone() for key, value in load_file(file).items() if not key.endswith(MAGNITUDE)}
    file.unlink()
    file.write_bytes(tensor_bytes(tensors, metadata={}))

    with pytest.raises(PipelineError, match=r"does not fit this UNet.*lora_magnitude_vector"):
        load_adapter(bare(tiny_base_model), tmp_path)


def test_dora_and_plain_lora_cannot_share_a_slot(tiny_base_model, tmp_path):
    folder = saved(trained(tiny_base_model, DORA), tmp_path, DORA)
    plain = bare(tiny_base_model)
    add(plain, {})

    with pytest.raises(PipelineError, match="does not fit"):
        load_adapter(plain, folder)


# --- exported --------------------------------------------------------------------------------------------------------


def exported(base, folder, kind, targets=TARGETS, *, full_pipeline=False):
    labels = ExportLabels("x", 1, "", base_model_info(base, name="tiny", revision=None), 64, 1)
    unet = trained(base, kind, targets)
    adapter = saved(unet, folder / "adapter", kind, targets)
    export_adapter(adapter, base_folder=base, labels=labels, full_pipeline=full_pipeline, output=folder / "export")
    return unet, folder / "export"


def in_stock_pipeline(base, file):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None, feature_extractor=None)
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    return pipeline.unet


@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")
@KINDS
def test_diffusers_own_loader_gives_what_was_in_memory(tiny_base_model, tmp_path, kind):
    unet, folder = exported(tiny_base_model, tmp_path, kind)

    theirs = in_stock_pipeline(tiny_base_model, folder / "x-diffusers" / DIFFUSERS_FILE)
    assert_same(predict(theirs), predict(unet), kind)


@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")
def test_the_kohya_file_of_rank_stabilised_lora_has_the_equivalent_alpha(tiny_base_model, tmp_path):
    unet, folder = exported(tiny_base_model, tmp_path, RSLORA)
    alphas = {float(t) for name, t in load_file(folder / "x.safetensors").items() if name.endswith(".alpha")}

    assert list(alphas) == [pytest.approx(ALPHA * math.sqrt(RANK))]
    theirs = in_stock_pipeline(tiny_base_model, folder / "x.safetensors")
    assert torch.allclose(predict(theirs), predict(unet), atol=1e-5)


@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")
@pytest.mark.parametrize("file", ["x.safetensors", f"x-diffusers/{DIFFUSERS_FILE}"])
def test_adapters_of_all_layers_load_everywhere(tiny_base_model, tmp_path, file):
    targets = resolve_target_modules(unet_skeleton(tiny_base_model), "all-linear-conv")
    unet, folder = exported(tiny_base_model, tmp_path, {}, targets)

    assert torch.allclose(predict(in_stock_pipeline(tiny_base_model, folder / file)), predict(unet), atol=1e-4)


@pytest.mark.parametrize("kind", [DORA, BOTH], ids=["dora", "both"])
def test_the_kohya_file_of_a_dora_gives_the_merged_weights_as_lycoris_reads_it(tiny_base_model, tmp_path, kind):
    """W' = dora_scale (W + alpha / rank up down) / its row lengths, lengths spread over the rows by shape alone."""
    unet, folder = exported(tiny_base_model, tmp_path, kind, full_pipeline=True)
    tensors = load_file(folder / "x.safetensors")
    merged = load_unet(folder / "x-pipeline", device="cpu", dtype=torch.float32)
    base = bare(tiny_base_model)

    assert torch.allclose(predict(merged), predict(unet), atol=1e-5)
    for path in layer_paths(adapter_state(unet)):
        name = f"lora_unet_{path.replace('.', '_')}"
        down, up = tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"]
        weight = base.get_submodule(path).weight
        whole = weight + (up.flatten(1) @ down.flatten(1)).reshape(weight.shape) * tensors[f"{name}.alpha"] / len(down)
        lengths = whole.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.dim() - 1))
        expected = whole * (tensors[f"{name}.dora_scale"] / lengths)
        assert expected.shape == weight.shape
        assert torch.allclose(expected, merged.get_submodule(path).weight, atol=1e-6)
