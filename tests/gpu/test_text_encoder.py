"""Training the text encoder on a GPU; skipped elsewhere. Run: python -m pytest tests/gpu"""

import pytest
import torch

from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.forward_pass import RecordedPass
from tests.gpu.test_cuda import DTYPES, FROM_THE_CPU, losses, on_gpu
from tests.unit.diffusion.tiny_training import tiny_trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


def both_on_gpu(base, dtype, **settings):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("load_unet", "load_text_encoder"):
            patch.setattr(f"tests.unit.diffusion.tiny_training.{name}", on_gpu(name))
        return tiny_trainer(base, policy=DevicePolicy("cuda", dtype, "test"), train_text_encoder=True, **settings)


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_follows_the_cpu_in_float32_whatever_the_unet_computes_in(tiny_base_model, dtype):
    expected = losses(tiny_trainer(tiny_base_model, train_text_encoder=True).run(6))
    trainer = both_on_gpu(tiny_base_model, dtype)
    assert not isinstance(trainer._pass, RecordedPass)
    assert losses(trainer.run(6)) == pytest.approx(expected, rel=FROM_THE_CPU[dtype])
    assert {p.dtype for p in trainer.models.text_encoder.parameters()} == {torch.float32}
    assert all(p.is_cuda for p in trainer.parameters.values())


@pytest.mark.parametrize("dtype", DTYPES)
def test_going_on_from_a_state_gives_the_same_losses_within_the_tolerance(tiny_base_model, dtype):
    knobs = {"ema_decay": 0.9, "text_encoder_learning_rate": 3e-3}
    expected = losses(both_on_gpu(tiny_base_model, dtype, **knobs).run(8))
    first = both_on_gpu(tiny_base_model, dtype, **knobs)
    list(first.run(3))
    later = both_on_gpu(tiny_base_model, dtype, **knobs)
    later.restore(first.state())
    assert losses(later.run(8)) == pytest.approx(expected[3:], rel=DTYPES[dtype])
