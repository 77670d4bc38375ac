"""Any optimizer's state goes through tensors and back; a package that is absent is named; magnitudes do not decay."""

import pytest
import torch

from loupe.diffusion import optimizers
from loupe.diffusion.optimizers import (
    learning_rate_note,
    make_optimizer,
    optimizer_libraries,
    optimizer_state,
    restore_optimizer,
)
from loupe.errors import PipelineError

KEYS = ("layer.lora_A.weight", "layer.lora_B.weight", "layer.lora_magnitude_vector")


class QuantisedOptimizer(torch.optim.AdamW):
    """Hands its moments out within a quantity of their own, as bitsandbytes does."""

    def state_dict(self):
        content = super().state_dict()
        return {**content, "state": {index: {"quant": dict(owned)} for index, owned in content["state"].items()}}

    def load_state_dict(self, content):
        super().load_state_dict({**content, "state": {i: owned["quant"] for i, owned in content["state"].items()}})


class CountingOptimizer(torch.optim.Optimizer):
    """Carries what Prodigy and 8-bit optimizers do: Python numbers, of the group too, and tensors of other dtypes."""

    def __init__(self, groups, lr, **_):
        super().__init__(groups, {"lr": lr, "d": 1e-6, "k": 0, "decouple": True})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["step"] = state.get("step", 0) + 1
                state["s"] = state.get("s", torch.zeros_like(parameter)) + group["d"] * parameter.grad
                state["scale"] = torch.tensor(3.25, dtype=torch.float64) * state["step"]
                parameter.sub_(group["lr"] * state["s"] * group["k"] * state["step"])
            group["d"] *= 1.5
            group["k"] += 1


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, 3), (4, 2), (4,))
    return {
        key: torch.nn.Parameter(torch.randn(shape, generator=generator))
        for key, shape in zip(KEYS, shapes, strict=True)
    }


def built(kind, named):
    if kind == "counting":
        return CountingOptimizer([{"params": list(named.values())}], lr=0.1)
    if kind == "quantised":
        return QuantisedOptimizer(named.values(), lr=0.1)
    if kind == "prodigy":
        pytest.importorskip("prodigyopt")
    return make_optimizer(kind, named, learning_rate=0.1, betas=(0.9, 0.99), epsilon=1e-8, weight_decay=0.01)


def train(optimizer, named, first, last):
    for step in range(first, last + 1):
        for index, parameter in enumerate(named.values()):
            parameter.grad = torch.sin(parameter.detach() * (step + index))
        optimizer.step()


@pytest.mark.parametrize("kind", ["adamw", "counting", "quantised", "prodigy"])
def test_an_optimizer_goes_on_from_its_state_to_the_same_bytes(kind):
    undisturbed, interrupted = parameters(), parameters()
    train(built(kind, undisturbed), undisturbed, 1, 7)
    optimizer = built(kind, interrupted)
    for first, last in ((1, 2), (3, 5)):
        train(optimizer, interrupted, first, last)
        state = optimizer_state(optimizer, interrupted)
        weights = {key: parameter.detach().clone() for key, parameter in interrupted.items()}
        train(optimizer, interrupted, last + 1, last + 1)  # the state must be a copy, not felt by going on
        interrupted = {key: torch.nn.Parameter(weight) for key, weight in weights.items()}
        optimizer = built(kind, interrupted)
        restore_optimizer(optimizer, interrupted, state)
    train(optimizer, interrupted, 6, 7)

    assert all(torch.equal(interrupted[key], undisturbed[key]) for key in KEYS)


def test_a_state_keeps_names_dtypes_and_numbers():
    named = parameters()
    optimizer = built("counting", named)
    train(optimizer, named, 1, 3)

    state = optimizer_state(optimizer, named)

    assert state["group 0/d:number"].item() == optimizer.param_groups[0]["d"] == 1e-6 * 1.5**3
    assert state[f"{KEYS[1]}/step:number"].item() == 3
    assert state[f"{KEYS[2]}/scale"].dtype is torch.float64
    assert not [name for name in state if name.startswith("group 0/lr") or name.startswith("group 0/decouple")]


def test_magnitudes_do_not_decay_and_matrices_do():
    named = parameters()
    before = {key: parameter.detach().clone() for key, parameter in named.items()}
    optimizer = built("adamw", named)
    for parameter in named.values():
        parameter.grad = torch.zeros_like(parameter)

    optimizer.step()

    moved = {key: not torch.equal(named[key], before[key]) for key in KEYS}
    assert moved == {KEYS[0]: True, KEYS[1]: True, KEYS[2]: False}


def test_adamw_is_torchs_with_the_numbers_that_were_given():
    numbers = {"betas": (0.5, 0.7), "weight_decay": 0.2}
    ours, theirs = ({key: parameters()[key] for key in KEYS[:2]} for _ in range(2))
    train(make_optimizer("adamw", ours, learning_rate=0.1, epsilon=1e-2, **numbers), ours, 1, 3)
    train(torch.optim.AdamW(theirs.values(), lr=0.1, eps=1e-2, **numbers), theirs, 1, 3)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "package"), [("adamw_8bit", "bitsandbytes"), ("prodigy", "prodigyopt")])
def test_a_package_that_is_not_there_is_named_with_the_way_out(monkeypatch, name, package):
    monkeypatch.setattr(optimizers, "find_spec", lambda _: None)

    with pytest.raises(PipelineError, match=f"needs the package {package}.*pip install {package}.*adamw"):
        optimizer_libraries(name, device="cuda")


def test_8_bit_adamw_off_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(optimizers, "find_spec", lambda _: object())

    assert optimizer_libraries("adamw_8bit", device="cuda") == ("bitsandbytes",)
    with pytest.raises(PipelineError, match="needs CUDA; this run is on cpu"):
        optimizer_libraries("adamw_8bit", device="cpu")


def test_plain_adamw_needs_nothing():
    assert optimizer_libraries("adamw", device="cpu") == ()


def test_prodigy_with_an_ordinary_learning_rate_is_remarked_on():
    assert "which is 0.0001; 1.0 is usual" in learning_rate_note("prodigy", 1e-4)
    assert learning_rate_note("prodigy", 1.0) is None
    assert learning_rate_note("adamw", 1e-4) is None
