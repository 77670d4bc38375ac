"""What only a GPU can show; skipped elsewhere. Run: python -m pytest tests/gpu"""

import pytest
import torch

from loupe.diffusion import cuda_graph
from loupe.diffusion.adapter import adapter_state, set_adapter_enabled, set_adapter_state
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.forward_pass import ForwardPass, RecordedPass
from loupe.diffusion.latents import encode_pixels
from loupe.diffusion.model_loading import load_text_encoder, load_tokenizer, load_vae
from loupe.diffusion.text import embed_all
from loupe.diffusion.unet_forward import UNetForward
from loupe.errors import PipelineError
from tests.unit.diffusion.tiny_training import tiny_trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]
DTYPES = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}
"""Relative tolerance of a loss between two runs: rounding and the order of atomic additions, not more."""

FROM_THE_CPU = {"float32": 2e-4, "bfloat16": 5e-3, "float16": 1e-3}
"""Relative distance of a loss from the CPU's in float32: about ten times what its own bfloat16 and float16 have.

The losses lie within 10 % of each other, and an adapter that learns nothing is 0.9 % off at the sixth step.
"""

MOST_APART = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.03}
"""Largest distance of two runs' weights, as a part of the way that they have come."""


def gpu_trainer(base, dtype="bfloat16", *, recorded=True, **settings):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cuda_graph.GRAPH_VARIABLE, "" if recorded else "off")
        patch.setattr("tests.unit.diffusion.tiny_training.load_unet", on_gpu("load_unet"))
        return tiny_trainer(base, policy=DevicePolicy("cuda", dtype, "test"), **settings)


def on_gpu(name):
    from loupe.diffusion import model_loading

    load = getattr(model_loading, name)
    return lambda folder, *, device, dtype: load(folder, device="cuda", dtype=dtype)


def losses(rows):
    return [row.loss for row in rows]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_recorded_step_trains_as_one_computed_kernel_by_kernel(tiny_base_model, dtype, accumulation):
    knobs = {"batch_size": 4 // accumulation, "gradient_accumulation_steps": accumulation, "ema_decay": 0.9}
    recorded = gpu_trainer(tiny_base_model, dtype, **knobs)
    plain = gpu_trainer(tiny_base_model, dtype, recorded=False, **knobs)
    assert isinstance(recorded._pass, RecordedPass)
    assert type(plain._pass) is ForwardPass

    expected = losses(plain.run(8))
    assert losses(recorded.run(8)) == pytest.approx(expected, rel=DTYPES[dtype])
    assert len({round(loss, 6) for loss in expected}) == 8  # every step saw a batch of its own


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [{}, {"use_dora": True, "target_modules": ("to_q", "conv1")}], ids=["lora", "dora"])
def test_training_on_a_gpu_follows_the_cpu(tiny_base_model, kind, dtype):
    expected = losses(tiny_trainer(tiny_base_model, **kind).run(6))

    found = losses(gpu_trainer(tiny_base_model, dtype, **kind).run(6))
    assert found == pytest.approx(expected, rel=FROM_THE_CPU[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_going_on_from_a_state_gives_the_same_losses_within_the_tolerance(tiny_base_model, dtype):
    undisturbed = gpu_trainer(tiny_base_model, dtype, ema_decay=0.9)
    expected = losses(undisturbed.run(8))
    first = gpu_trainer(tiny_base_model, dtype, ema_decay=0.9)
    list(first.run(3))
    later = gpu_trainer(tiny_base_model, dtype, ema_decay=0.9)
    later.restore(first.state())

    assert losses(later.run(8)) == pytest.approx(expected[3:], rel=DTYPES[dtype])
    start, end, reached = (
        torch.cat([weight.flatten() for weight in weights.values()])
        for weights in (
            adapter_state(gpu_trainer(tiny_base_model, dtype).unet),
            *(trainer.state().average for trainer in (undisturbed, later)),
        )
    )
    # Adam gives a weight without a gradient to speak of a step of full size, in the direction of its noise.
    assert float((reached - end).norm() / (end - start).norm()) < MOST_APART[dtype]


@pytest.mark.parametrize("knobs", [{"lora_dropout": 0.3}, {"use_dora": True}, {"train_text_encoder": True}], ids=str)
def test_what_cannot_be_recorded_trains_all_the_same(tiny_base_model, knobs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.unit.diffusion.tiny_training.load_text_encoder", on_gpu("load_text_encoder"))
        trainer = gpu_trainer(tiny_base_model, **knobs)
    assert type(trainer._pass) is ForwardPass

    assert all(0 < loss < 10 for loss in losses(trainer.run(4)))


def test_a_step_that_is_not_finite_is_named_and_changes_no_weight(tiny_base_model):
    trainer = gpu_trainer(tiny_base_model)
    list(trainer.run(2))
    before = adapter_state(trainer.unet)
    trainer.examples.mean[:] = float("nan")
    with pytest.raises(PipelineError, match="Training stopped at step 3: loss nan"):
        list(trainer.run(6))

    assert all(torch.equal(weight, before[key]) for key, weight in adapter_state(trainer.unet).items())


@pytest.mark.parametrize("recorded", [True, False])
def test_no_step_makes_the_host_wait_for_the_gpu(tiny_base_model, recorded):
    """CUDA itself refuses here what would wait; the numbers of a step are read when the next one has begun."""
    trainer = gpu_trainer(tiny_base_model, recorded=recorded, ema_decay=0.9)
    list(trainer.run(2))
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer._launched.append(trainer._launch(3))
        with pytest.raises(RuntimeError, match="synchroniz"):
            trainer._launched[0].numbers.cuda().tolist()  # the refusal works
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [row.step for row in trainer.run(3)] == [3]


@torch.no_grad()
def test_a_recorded_forward_pass_sees_the_adapter_that_is_there_now(tiny_base_model):
    policy = DevicePolicy("cuda", "float32", "test")
    unet = gpu_trainer(tiny_base_model, "float32").unet.eval()
    recorded, plain = (UNetForward(unet, policy=policy, recorded=choice) for choice in (True, False))
    generator = torch.Generator().manual_seed(1)
    states = [{k: torch.randn(w.shape, generator=generator) for k, w in adapter_state(unet).items()} for _ in range(2)]
    pictures = []
    for state, enabled in [(states[0], True), (states[1], True), (states[1], False), (states[0], True)]:
        set_adapter_state(unet, state)
        set_adapter_enabled(unet, enabled)
        noisy = torch.randn(2, 4, 8, 8, generator=generator).cuda()
        text = torch.randn(2, 77, 16, generator=generator).cuda()
        for timestep in (torch.tensor(900).cuda(), torch.tensor(7).cuda()):
            expected = plain(noisy, timestep, text)
            assert torch.allclose(recorded(noisy, timestep, text), expected, atol=1e-5)
            pictures.append(expected)
    assert not any(torch.allclose(a, b, atol=1e-2) for i, a in enumerate(pictures) for b in pictures[:i])


def test_encoding_several_together_gives_what_each_alone_gives_on_the_cpu(tiny_base_model):
    pixels = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    texts = ["a photo of red shoes", "", "black shoes"]
    found, expected = {}, {}
    for device, results in (("cuda", found), ("cpu", expected)):
        vae = load_vae(tiny_base_model, device=device, dtype=torch.float32)
        text_encoder = load_text_encoder(tiny_base_model, device=device, dtype=torch.float32)
        results["images"] = encode_pixels(vae, pixels)
        results["texts"] = embed_all(texts, tokenizer=load_tokenizer(tiny_base_model), text_encoder=text_encoder)

    for one, other in zip(found["images"], expected["images"], strict=True):
        assert torch.allclose(one["mean"], other["mean"], rtol=1e-2, atol=1e-3)
        assert torch.allclose(one["std"], other["std"], rtol=1e-2, atol=1e-3)
    assert torch.allclose(found["texts"], expected["texts"], atol=1e-4)
