"""Presets and names become one list; what matches nothing is refused. The counts are those of Stable Diffusion 1.5."""

import pytest
import torch

from loupe.diffusion.adapter import AdapterConfig, adapter_parameters, add_adapter, save_adapter
from loupe.diffusion.model_loading import load_unet
from loupe.diffusion.target_modules import resolve_target_modules, unet_skeleton
from loupe.errors import PipelineError
from loupe.train_params import TARGET_PRESETS


def adapted_layers(unet):
    return {key.rpartition(".lora_")[0] for key in adapter_parameters(unet)}


@pytest.mark.parametrize("preset", TARGET_PRESETS)
def test_every_preset_that_params_know_matches_layers_of_a_base_model(tiny_base_model, preset):
    unet = load_unet(tiny_base_model, device="cpu", dtype=torch.float32)
    n_blocks = sum(path.endswith(".attn1") for path, _ in unet.named_modules())
    fit = {path for path, module in unet.named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)}
    names = resolve_target_modules(unet, preset)
    add_adapter(unet, rank=2, alpha=2, target_modules=names, generator=torch.Generator().manual_seed(0))

    expected = {
        "qv": 4 * n_blocks,
        "attention": 8 * n_blocks,
        "attention+ff": 10 * n_blocks,
        "all-linear-conv": len(fit),
    }

    assert len(adapted_layers(unet)) == expected[preset]
    assert adapted_layers(unet) <= fit


def test_a_list_is_taken_as_it_is_and_sorted(tiny_base_model):
    unet = unet_skeleton(tiny_base_model)

    assert resolve_target_modules(unet, ["to_v", "conv1", "to_v"]) == ("conv1", "to_v")
    assert resolve_target_modules(unet, "attention") == resolve_target_modules(
        unet, ("to_q", "to_k", "to_v", "to_out.0")
    )


def test_names_that_match_nothing_are_refused_with_the_nearest(tiny_base_model):
    with pytest.raises(PipelineError, match="to_qq: no such layer in this UNet; nearest: to_q"):
        resolve_target_modules(unet_skeleton(tiny_base_model), ["to_qq"])


def test_a_preset_that_matches_nothing_is_refused(tiny_base_model):
    convolutions_only = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))

    with pytest.raises(PipelineError, match="to_q: no such layer"):
        resolve_target_modules(convolutions_only, "qv")


def test_the_skeleton_has_no_weights_and_draws_nothing(tiny_base_model):
    before = torch.get_rng_state()

    unet = unet_skeleton(tiny_base_model)

    assert {parameter.device.type for parameter in unet.parameters()} == {"meta"}
    assert torch.equal(torch.get_rng_state(), before)


def test_stable_diffusion_1_5_at_rank_8_trains_the_published_number_of_parameters(tmp_path):
    """128 attention projections, 1,594,368 parameters, 0.19 % of the UNet, a file of 6.4 MB."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    n_base = sum(parameter.numel() for parameter in unet.parameters())
    names = resolve_target_modules(unet, "attention")
    add_adapter(unet, rank=8, alpha=16, target_modules=names, generator=torch.Generator().manual_seed(0))
    n_adapter = sum(parameter.numel() for parameter in adapter_parameters(unet).values())
    zeros = {key: torch.zeros(value.shape) for key, value in adapter_parameters(unet).items()}
    save_adapter(tmp_path, zeros, AdapterConfig(8, 16, names, "sd15"))

    assert n_base == 859_520_964
    assert n_adapter == 1_594_368
    assert len(adapted_layers(unet)) == 128
    assert n_adapter / n_base == pytest.approx(0.0019, abs=0.0001)
    assert (tmp_path / "adapter_model.safetensors").stat().st_size == pytest.approx(6.4e6, abs=0.1e6)
