"""The one forward pass in half precision: where autocast is needed it is on, and nowhere else."""

import pytest
import torch

from loupe.diffusion.adapter import adapter_state, add_adapter, set_adapter_state
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.model_loading import load_unet
from loupe.diffusion.unet_forward import needs_autocast, predict

TARGETS = ("to_q", "to_out.0", "conv1", "proj_in")  # linear layers, 3x3 and 1x1 convolutions


def adapted(base, kind, dtype):
    """A UNet in a dtype, with an adapter that changes its prediction."""
    unet = load_unet(base, device="cpu", dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    add_adapter(unet, rank=4, alpha=6.0, target_modules=TARGETS, generator=generator, **kind)
    state = {
        key: value if "lora_B" not in key else 0.3 * torch.randn(value.shape, generator=generator)
        for key, value in adapter_state(unet).items()
    }
    set_adapter_state(unet, state)
    return unet


@torch.no_grad()
def predicted(unet, dtype_name):
    generator = torch.Generator().manual_seed(7)
    noisy, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 77, 16, generator=generator)
    policy = DevicePolicy("cpu", dtype_name, "test")
    return predict(unet, noisy, torch.tensor([10, 900]), text, policy=policy, autocast=needs_autocast(unet))


@pytest.mark.parametrize(
    ("kind", "needed"), [({}, False), ({"use_rslora": True}, False), ({"use_dora": True}, True)], ids=str
)
def test_half_precision_predicts_nearly_the_same_with_every_kind_of_adapter(tiny_base_model, kind, needed):
    exact = predicted(adapted(tiny_base_model, kind, torch.float32), "float32")
    unet = adapted(tiny_base_model, kind, torch.bfloat16)
    of_base = predicted(load_unet(tiny_base_model, device="cpu", dtype=torch.bfloat16), "bfloat16")
    found = predicted(unet, "bfloat16")

    assert needs_autocast(unet) is needed
    assert found.dtype == of_base.dtype == torch.float32
    assert float((found - exact).norm() / exact.norm()) < 0.05
    assert float((of_base - exact).norm() / exact.norm()) > 0.2  # the adapter is felt


def test_a_base_model_by_itself_needs_no_autocast(tiny_base_model):
    assert not needs_autocast(load_unet(tiny_base_model, device="cpu", dtype=torch.bfloat16))


@torch.no_grad()
def test_without_autocast_no_activation_leaves_the_dtype_of_the_base_model(tiny_base_model):
    unet, seen = adapted(tiny_base_model, {}, torch.bfloat16), set()
    for name, module in unet.named_modules():
        if not list(module.children()) and "lora_" not in name and name != "time_proj":
            module.register_forward_hook(lambda _, inputs, output: seen.add(output.dtype))
    predicted(unet, "bfloat16")
    assert seen == {torch.bfloat16}
