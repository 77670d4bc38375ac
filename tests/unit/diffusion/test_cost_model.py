"""Counts of the cost model against layers worked out by hand, and against the published numbers of SD 1.5."""

import json

import pytest
import torch

from benchmarks.full_size import TEXT_ENCODER, UNET, VAE
from loupe.diffusion.adapter import AdapterConfig
from loupe.diffusion.cost_model import _FusedAttention, _LiveBytes, drawing_cost, unet_cost
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.target_modules import resolve_target_modules, unet_skeleton
from loupe.diffusion.text_encoder_cost import with_text_encoder
from tests.tiny_models import build_tiny_base_model

CPU = DevicePolicy("cpu", "float32", "test")
CUDA = DevicePolicy("cuda", "bfloat16", "test")
ATTENTION = AdapterConfig(rank=8, alpha=16, target_modules=("to_k", "to_out.0", "to_q", "to_v"), base_model="x")
GFLOP = 1e9


@pytest.fixture(scope="module")
def sd15(tmp_path_factory):
    """Configurations of Stable Diffusion 1.5, without weights."""
    folder = tmp_path_factory.mktemp("sd15")
    kinds = {"unet": (UNET, "UNet2DConditionModel"), "vae": (VAE, "AutoencoderKL"), "text_encoder": (TEXT_ENCODER, "")}
    for part, (config, kind) in kinds.items():
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps({**config, "_class_name": kind}))
    return folder


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory):
    return build_tiny_base_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def sd15_cost(sd15):
    return unet_cost(sd15, adapter=ATTENTION, latent_side=64, text_tokens=77, policy=CPU)


def test_sd15_has_the_published_counts(sd15_cost):
    assert sd15_cost.n_base_parameters == 859_520_964
    assert sd15_cost.n_adapter_parameters == 1_594_368
    assert sd15_cost.weight_bytes == 4 * (859_520_964 + 1_594_368)


def test_sd15_at_512_px_costs_the_published_flop(sd15_cost):
    """803 GFLOP forward, 1,714 with a backward pass, 2,303 with gradient checkpointing: measured with rank 4."""
    assert sd15_cost.forward_flop / GFLOP == pytest.approx(803, rel=0.01)
    assert sd15_cost.training_flop / GFLOP == pytest.approx(1714, rel=0.02)
    assert sd15_cost.checkpointed_flop / GFLOP == pytest.approx(2303, rel=0.07)


def test_half_precision_on_a_gpu_that_is_not_here_keeps_less(sd15, sd15_cost):
    cuda = unet_cost(sd15, adapter=ATTENTION, latent_side=64, text_tokens=77, policy=CUDA)
    assert cuda.weight_bytes == 2 * 859_520_964 + 4 * 1_594_368
    assert 0.5 * sd15_cost.kept_bytes < cuda.kept_bytes < 0.8 * sd15_cost.kept_bytes
    assert cuda.forward_flop == sd15_cost.forward_flop


@pytest.mark.parametrize(("choice", "use_dora"), [("attention", True), ("all-linear-conv", True), ("qv", False)])
def test_every_kind_of_adapter_can_be_counted(tiny_base, choice, use_dora):
    names = resolve_target_modules(unet_skeleton(tiny_base), choice)
    adapter = AdapterConfig(rank=4, alpha=8, target_modules=names, base_model="x", use_dora=use_dora)
    cost = unet_cost(tiny_base, adapter=adapter, latent_side=8, text_tokens=77, policy=CPU)
    assert cost.n_adapter_parameters > 0
    assert 0 < cost.checkpointed_bytes < cost.kept_bytes


def test_recomputing_keeps_far_less_than_keeping(sd15_cost):
    assert 0 < sd15_cost.checkpointed_bytes < 0.35 * sd15_cost.kept_bytes


def test_kept_bytes_grow_with_the_pixels(sd15, sd15_cost):
    smaller = unet_cost(sd15, adapter=ATTENTION, latent_side=32, text_tokens=77, policy=CPU)
    assert sd15_cost.kept_bytes / smaller.kept_bytes == pytest.approx(4, rel=0.1)


def test_decoding_an_sd15_picture_costs_the_published_flop(sd15):
    cost = drawing_cost(sd15, latent_side=64, text_tokens=77, policy=CPU)
    assert cost.decode_flop / GFLOP == pytest.approx(2515, rel=0.02)
    assert cost.weight_bytes == 4 * (859_520_964 + 83_653_863 + 123_060_480)
    assert cost.row_flop / GFLOP == pytest.approx(803, rel=0.01)
    # One feature map of the decoder at full size is 128 channels x 512 x 512 float32; several are alive at once.
    assert cost.decode_bytes > 2 * 128 * 512 * 512 * 4
    assert cost.row_bytes < 0.5e9


def test_live_bytes_count_a_storage_once_and_until_it_is_freed():
    known = torch.empty(1000)
    with _LiveBytes([known]) as memory:
        transposed = known.view(10, 100).t()
        assert memory.live == 0
        made = known + 1
        view = made.view(100, 10)
        assert memory.live == 4000
        del made
        assert memory.live == 4000
        del view
        assert memory.live == 0
    assert (memory.peak, memory.largest) == (4000, 4000)
    assert transposed.shape == (100, 10)


def test_attention_is_counted_as_a_fused_kernel_that_keeps_no_matrix():
    query = torch.zeros(2, 8, 100, 40, requires_grad=True)
    key = torch.zeros(2, 8, 77, 40)
    with _FusedAttention() as attention, _LiveBytes([query, key]) as memory:
        output = torch.nn.functional.scaled_dot_product_attention(query, key, value=key)
    assert output.shape == query.shape
    assert attention.flop == 2 * (2 * 8 * 100 * 77 * 40) * 2
    assert memory.peak == output.numel() * 4


def test_the_text_encoder_of_sd15_adds_its_published_counts(sd15, sd15_cost):
    """123,060,480 parameters, 13.3 GFLOP per caption; 12 layers x 4 projections of an adapter of rank 8."""
    cost = with_text_encoder(sd15_cost, sd15, adapter=ATTENTION, text_tokens=77)
    n_adapter = 12 * 4 * 2 * 8 * 768
    assert cost.n_base_parameters - sd15_cost.n_base_parameters == 123_060_480
    assert cost.n_adapter_parameters - sd15_cost.n_adapter_parameters == n_adapter
    assert cost.weight_bytes - sd15_cost.weight_bytes == 4 * (123_060_480 + n_adapter)
    forward = cost.forward_flop - sd15_cost.forward_flop
    assert forward / GFLOP == pytest.approx(13.3, rel=0.02)
    assert 2 * forward < cost.training_flop - sd15_cost.training_flop < 2.2 * forward
    kept = cost.kept_bytes - sd15_cost.kept_bytes
    assert kept == cost.checkpointed_bytes - sd15_cost.checkpointed_bytes  # nothing of it is computed twice
    assert 12 * 10 * 77 * 768 * 4 < kept < 0.05 * sd15_cost.kept_bytes
