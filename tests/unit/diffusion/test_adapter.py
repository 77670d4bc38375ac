import json

import pytest
import torch
from safetensors import safe_open

from loupe.diffusion import adapter
from loupe.diffusion.adapter import (
    AdapterConfig,
    adapter_parameters,
    adapter_state,
    add_adapter,
    load_adapter,
    save_adapter,
    set_adapter_enabled,
)
from loupe.diffusion.model_loading import load_unet
from loupe.errors import PipelineError

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
RANK, ALPHA = 4, 16.0
N_TRANSFORMER_BLOCKS = 4  # one on the way down, one in the middle, two on the way up


@pytest.fixture
def unet(tiny_base_model):
    return load_unet(tiny_base_model, device="cpu", dtype=torch.float32)


def add(unet, *, seed=0, rank=RANK, alpha=ALPHA, target_modules=ATTENTION):
    add_adapter(
        unet, rank=rank, alpha=alpha, target_modules=target_modules, generator=torch.Generator().manual_seed(seed)
    )


def save(folder, state, *, rank=RANK, alpha=ALPHA):
    save_adapter(folder, state, AdapterConfig(rank, alpha, ATTENTION, "tiny"))


def random_state(unet, seed):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(value.shape, generator=generator) for key, value in adapter_state(unet).items()}


def predict(unet):
    """The prediction in the dtype of the UNet's weights."""
    generator = torch.Generator().manual_seed(7)
    noisy = torch.randn(2, 4, 8, 8, generator=generator).to(unet.dtype)
    text = torch.randn(2, 77, 16, generator=generator).to(unet.dtype)
    with torch.no_grad():
        return unet(noisy, torch.tensor([10, 900]), encoder_hidden_states=text).sample


def test_a_fresh_adapter_and_a_switched_off_one_leave_the_base_exact(unet):
    before = predict(unet)
    add(unet)
    assert torch.equal(predict(unet), before)

    adapter.set_adapter_state(unet, random_state(unet, 1))
    assert not torch.allclose(predict(unet), before)

    set_adapter_enabled(unet, False)
    assert torch.equal(predict(unet), before)


def test_only_adapter_parameters_get_a_gradient(unet):
    add(unet)
    adapter.set_adapter_state(unet, random_state(unet, 1))
    unet(
        torch.randn(1, 4, 8, 8), torch.tensor([5]), encoder_hidden_states=torch.randn(1, 77, 16)
    ).sample.sum().backward()

    with_gradient = {name for name, parameter in unet.named_parameters() if parameter.grad is not None}

    assert len(with_gradient) == len(adapter_parameters(unet)) == 2 * len(ATTENTION) * 2 * N_TRANSFORMER_BLOCKS
    assert all("lora_" in name for name in with_gradient)


def test_weights_are_float32_on_a_bfloat16_base(tiny_base_model):
    unet = load_unet(tiny_base_model, device="cpu", dtype=torch.bfloat16)
    add(unet)

    assert {parameter.dtype for parameter in adapter_parameters(unet).values()} == {torch.float32}


def test_the_start_is_decided_by_the_generator_alone(tiny_base_model):
    states = []
    for seed, global_seed in ((3, 0), (3, 1), (4, 0)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(global_seed)
            unet = load_unet(tiny_base_model, device="cpu", dtype=torch.float32)
            before = torch.get_rng_state()
            add(unet, seed=seed)
            assert torch.equal(torch.get_rng_state(), before)
        states.append(adapter_state(unet))

    first, same, other = states
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_target_modules_that_match_nothing_are_all_named_with_the_nearest(unet):
    with pytest.raises(PipelineError) as caught:
        add(unet, target_modules=["to_kk", "to_q", "attn1"])

    message = str(caught.value)
    assert "2 problems" in message
    assert "to_kk: no such layer in this UNet; nearest: to_k" in message
    assert "attn1: " in message


def test_convolutions_can_have_an_adapter(unet):
    add(unet, target_modules=["conv1"])

    assert {value.dim() for value in adapter_state(unet).values()} == {4}


def test_peft_reads_the_saved_adapter_at_its_full_strength(unet, tiny_base_model, tmp_path):
    from peft import PeftModel

    add(unet)
    state = random_state(unet, 2)
    adapter.set_adapter_state(unet, state)
    save(tmp_path, state)

    theirs = PeftModel.from_pretrained(load_unet(tiny_base_model, device="cpu", dtype=torch.float32), tmp_path)

    # In float64: this adapter is so strong that in float32 the order of a sum shows in the fourth digit.
    torch.testing.assert_close(predict(theirs.double()), predict(unet.double()), rtol=1e-10, atol=1e-12)


def test_the_update_is_alpha_over_rank_times_b_a(unet):
    layer = unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q")
    x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(1))
    base = layer(x)
    add(unet)
    state = random_state(unet, 3)
    adapter.set_adapter_state(unet, state)

    adapted = unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q")
    a, b = (state[f"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_{m}.weight"] for m in "AB")

    assert torch.allclose(adapted(x) - base, ALPHA / RANK * x @ a.T @ b.T, rtol=1e-4, atol=1e-4)


def test_alpha_is_in_the_header_of_the_one_file_and_its_bytes_are_canonical(unet, tmp_path):
    add(unet)
    save(tmp_path, adapter_state(unet))
    content = (tmp_path / "adapter_model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])

    assert json.loads(header["__metadata__"]["lora_adapter_metadata"])["lora_alpha"] == ALPHA
    assert list(header) == sorted(header)
    assert list(header["__metadata__"]) == sorted(header["__metadata__"])
    with safe_open(tmp_path / "adapter_model.safetensors", framework="pt") as file:
        assert set(file.keys()) == {f"base_model.model.{key}" for key in adapter_state(unet)}


def test_adapters_are_swapped_in_one_slot(unet, tmp_path):
    add(unet)
    states = {name: random_state(unet, seed) for name, seed in (("a", 1), ("b", 2))}
    for name, state in states.items():
        save(tmp_path / name, state)
    n_parameters = sum(1 for _ in unet.parameters())

    predictions = []
    for name in ("a", "b", "a"):
        set_adapter_enabled(unet, False)
        load_adapter(unet, tmp_path / name)
        predictions.append(predict(unet))

    assert torch.equal(predictions[0], predictions[2])
    assert not torch.equal(predictions[0], predictions[1])
    assert sum(1 for _ in unet.parameters()) == n_parameters


def test_a_bare_unet_gets_its_slot_from_the_file(unet, tiny_base_model, tmp_path):
    add(unet)
    adapter.set_adapter_state(unet, random_state(unet, 5))
    save(tmp_path, adapter_state(unet))
    fresh = load_unet(tiny_base_model, device="cpu", dtype=torch.float32)

    load_adapter(fresh, tmp_path)

    assert torch.equal(predict(fresh), predict(unet))


@pytest.mark.parametrize(("rank", "words"), [(RANK, "cannot share a slot"), (RANK // 2, "does not fit")])
def test_another_strength_or_rank_cannot_share_the_slot(unet, tiny_base_model, tmp_path, rank, words):
    other = load_unet(tiny_base_model, device="cpu", dtype=torch.float32)
    alpha = ALPHA / 2
    add(other, rank=rank, alpha=alpha)
    save(tmp_path, adapter_state(other), rank=rank, alpha=alpha)
    add(unet)

    with pytest.raises(PipelineError, match=words):
        load_adapter(unet, tmp_path)


def test_a_file_cut_short_is_named(unet, tmp_path):
    add(unet)
    save(tmp_path, adapter_state(unet))
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])

    with pytest.raises(PipelineError, match=r"adapter_model.safetensors is damaged"):
        load_adapter(unet, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: {**content, "lora_alpha": 400},
        lambda content: {**content, "target_modules": None},
        lambda content: [1],
    ],
)
def test_a_strength_changed_by_hand_is_refused(unet, tmp_path, change):
    """The weights alone are hashed; another alpha beside them would draw other pictures under the same name."""
    add(unet)
    save(tmp_path, adapter_state(unet))
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(
        PipelineError, match=r"adapter_config\.json is damaged .*it is not what adapter_model\.safetensors"
    ):
        load_adapter(unet, tmp_path)
