import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from loupe.diffusion.fused_lora import FusedLinear, LyingProducts, fuse


def inputs(*, bias: bool = True):
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape, requires_grad=False):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(requires_grad)

    rows, a, b = (drawn(*shape, requires_grad=True) for shape in ((11, 6), (2, 6), (5, 2)))
    return rows, drawn(5, 6), drawn(5) if bias else None, a, b, 0.7


@pytest.mark.parametrize("bias", [True, False])
def test_the_backward_pass_is_the_derivative_of_the_forward_pass(bias):
    assert torch.autograd.gradcheck(LyingProducts.apply, inputs(bias=bias))


def test_rows_that_want_no_gradient_get_none():
    rows, *others = inputs()
    LyingProducts.apply(rows.detach(), *others).sum().backward()

    assert rows.grad is None
    assert all(others[place].grad is not None for place in (2, 3))


def layer(*, dropout: float = 0.0) -> nn.ModuleDict:
    torch.manual_seed(0)
    model = nn.ModuleDict({"to_q": nn.Linear(6, 5)}).double()
    config = LoraConfig(r=2, lora_alpha=3, target_modules=["to_q"], lora_dropout=dropout, init_lora_weights=False)
    inject_adapter_in_model(config, model)
    return model.double()


def with_gradients(model, x):
    model.zero_grad()
    x = x.clone().requires_grad_()
    y = model["to_q"](x)
    y.square().sum().backward()
    adapter = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return y.detach(), x.grad, adapter


def test_output_and_every_gradient_are_those_of_pefts_own_layer():
    model, x = layer(), torch.randn(2, 3, 6, dtype=torch.float64)
    theirs = with_gradients(model, x)
    fuse(model["to_q"])
    assert isinstance(model["to_q"], FusedLinear)

    ours = with_gradients(model, x)

    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert len(ours[2]) == 2
    assert all(gradient.is_contiguous() for gradient in ours[2].values())


def test_dropout_acts_on_what_the_adapter_sees_alone():
    model, x = layer(dropout=0.5), torch.randn(64, 6, dtype=torch.float64)
    fuse(model["to_q"])
    model.train()
    base = model["to_q"].base_layer(x)
    whole = model.eval()["to_q"](x) - base
    torch.manual_seed(1)
    some = model.train()["to_q"](x) - base

    assert not torch.allclose(some, whole)
    torch.manual_seed(1)
    dropped = nn.functional.dropout(x, 0.5)
    a, b = (model["to_q"].get_submodule(f"lora_{name}.default").weight for name in "AB")
    torch.testing.assert_close(some, 1.5 * dropped @ a.t() @ b.t())


def test_with_and_without_gradients_the_output_is_the_same_to_the_bit():
    model, x = layer(), torch.randn(7, 6, dtype=torch.float64)
    fuse(model["to_q"])
    with torch.no_grad():
        drawn = model["to_q"](x)

    assert torch.equal(model["to_q"](x).detach(), drawn)
