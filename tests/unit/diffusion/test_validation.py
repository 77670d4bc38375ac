"""Validation loss: closed forms, its own noise for every image, independence of the batch, and what it refuses."""

import numpy as np
import pytest
import torch
from scipy import stats

from loupe.diffusion import validation
from loupe.diffusion.adapter import set_adapter_enabled
from loupe.diffusion.device_memory import Portions
from loupe.diffusion.latent_files import Examples
from loupe.diffusion.model_loading import load_noise_scheduler, load_unet
from loupe.diffusion.unet_forward import UNetForward
from loupe.diffusion.validation import (
    curve_rows,
    fixed_timesteps,
    make_validation_set,
    require_finite_losses,
    timestep_rows,
    validation_losses,
)
from loupe.errors import PipelineError
from tests.unit.diffusion.tiny_checkpoints import made_up_adapter
from tests.unit.diffusion.tiny_training import CPU, tiny_examples

ALPHAS = torch.linspace(0.99, 0.01, 1000)


class FixedAnswer(torch.nn.Module):
    """A UNet that predicts a function of its inputs; it keeps what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.asked = []

    def forward(self, noisy, timesteps, *, encoder_hidden_states):
        self.asked.append((noisy, timesteps, encoder_hidden_states))
        sample = self.answer(noisy, timesteps, encoder_hidden_states)
        return type("Output", (), {"sample": sample})()


def validation_set(examples=None, *, alphas=ALPHAS, n_timesteps=3, prediction_type="epsilon", seed=5):
    return make_validation_set(
        examples or tiny_examples(),
        alphas_cumprod=alphas,
        n_timesteps=n_timesteps,
        prediction_type=prediction_type,
        scaling_factor=0.18215,
        seed=seed,
    )


def chosen(examples, rows):
    rows = torch.tensor(rows)
    ids = tuple(examples.image_ids[row] for row in rows)
    return Examples(ids, examples.mean[rows], examples.std[rows], examples.caption_index[rows], examples.embeddings)


def measured(unet, data):
    return validation_losses(unet, data, policy=CPU, what="test")


# --- what is measured ------------------------------------------------------------------------------------------------


def test_timesteps_are_the_middles_of_equal_bins():
    assert fixed_timesteps(8, n_train_timesteps=1000) == (62, 187, 312, 437, 562, 687, 812, 937)
    assert fixed_timesteps(2, n_train_timesteps=10) == (2, 7)
    assert fixed_timesteps(10, n_train_timesteps=10) == tuple(range(10))


def test_a_unet_that_predicts_nothing_has_the_mean_square_of_the_noise_as_its_loss():
    data = validation_set()
    losses = measured(FixedAnswer(lambda noisy, *_: torch.zeros_like(noisy)), data)
    expected = data.noise.square().mean(dim=(1, 2, 3))
    assert losses.shape == (6, 3)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, expected[:, None].expand(-1, 3))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_unet_that_knows_the_clean_image_has_no_loss(prediction_type):
    """It solves x_t = sqrt(a) x + sqrt(1 - a) e for e, so mean, scale, noise and timestep must all fit together."""
    data = validation_set(prediction_type=prediction_type)
    examples = data.examples

    def oracle(noisy, timesteps, text):
        image = (text[:, None] == examples.embeddings[examples.caption_index][None]).flatten(2).all(2).int().argmax(1)
        a, clean = ALPHAS[timesteps][:, None, None, None], examples.mean[image] * 0.18215
        noise = (noisy - a.sqrt() * clean) / (1 - a).sqrt()
        return noise if prediction_type == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * clean

    losses = measured(FixedAnswer(oracle), data)
    torch.testing.assert_close(losses, torch.zeros_like(losses), atol=1e-8, rtol=0)


def test_it_is_the_posterior_mean_that_is_measured_not_a_draw():
    examples = tiny_examples()
    noisier = Examples(
        examples.image_ids, examples.mean, 100 * examples.std, examples.caption_index, examples.embeddings
    )
    unet = FixedAnswer(lambda noisy, *_: noisy)
    assert torch.equal(measured(unet, validation_set(examples)), measured(unet, validation_set(noisier)))


def test_the_noise_belongs_to_the_seed_and_the_image_and_is_not_that_of_training():
    from loupe.diffusion.noise import seeded_generator

    data, reordered = validation_set(), validation_set(chosen(tiny_examples(), [3, 0]))
    assert torch.equal(reordered.noise, data.noise[[3, 0]])
    assert len({noise.numpy().tobytes() for noise in data.noise}) == len(data.noise) == 6
    assert not torch.equal(validation_set(seed=6).noise, data.noise)
    of_training = torch.randn(4, 8, 8, generator=seeded_generator(5, "noise", 0, "image0"))
    assert not torch.equal(data.noise[0], of_training)


# --- bit for bit -----------------------------------------------------------------------------------------------------


@pytest.fixture
def unet(tiny_base_model):
    return load_unet(tiny_base_model, device="cpu", dtype=torch.float32)


def test_an_images_losses_do_not_depend_on_the_others(unet, tiny_base_model):
    alphas = load_noise_scheduler(tiny_base_model).alphas_cumprod
    examples = tiny_examples(23)
    together = measured(unet, validation_set(examples, alphas=alphas))
    some = measured(unet, validation_set(chosen(examples, [20, 7]), alphas=alphas))
    assert torch.equal(some, together[[20, 7]])


def test_a_gpu_whose_memory_is_full_takes_fewer_rows_at_once_and_measures_the_same(unet, monkeypatch):
    """The way of a GPU, on the CPU: its memory is made up to hold five rows."""
    data = validation_set(chosen(tiny_examples(), [0, 1, 2, 3, 4, 5]), n_timesteps=3)
    expected = measured(unet, data)
    forward, sizes = UNetForward.__call__, []

    def limited(self, noisy, timesteps, text):
        sizes.append(len(noisy))
        if len(noisy) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(self, noisy, timesteps, text)

    monkeypatch.setattr(UNetForward, "__call__", limited)
    monkeypatch.setattr(validation, "Portions", lambda at_once, _device, advice: Portions(at_once, "cuda", advice))

    assert torch.allclose(measured(unet, data), expected, rtol=1e-5)
    assert sizes == [16, 8, *[4] * 8]


def test_a_switched_off_adapter_measures_as_the_base_model(unet, tiny_base_model):
    from loupe.diffusion.adapter import add_adapter, set_adapter_state
    from tests.unit.diffusion.tiny_checkpoints import ALPHA, RANK, TARGETS

    data = validation_set()
    base = measured(unet, data)
    add_adapter(unet, rank=RANK, alpha=ALPHA, target_modules=TARGETS, generator=torch.Generator().manual_seed(0))
    assert torch.equal(measured(unet, data), base), "a fresh adapter changes nothing"
    set_adapter_state(unet, made_up_adapter(tiny_base_model, seed=3))
    assert not torch.equal(measured(unet, data), base)
    set_adapter_enabled(unet, False)
    assert torch.equal(measured(unet, data), base)


# --- curves ----------------------------------------------------------------------------------------------------------


def test_the_difference_to_the_base_is_paired_by_image_and_its_interval_is_that_of_a_t_test():
    rng = np.random.default_rng(0)
    base = torch.tensor(rng.uniform(0.1, 0.9, (40, 4)), dtype=torch.float32)
    better = base - torch.tensor(rng.normal(0.02, 0.01, (40, 4)), dtype=torch.float32)
    first, second = curve_rows({50: better, 0: base})

    assert (first.step, first.n_images, first.val_loss_diff_base) == (0, 40, None)
    assert first.val_loss_diff_base_lo is first.val_loss_diff_base_hi is None
    paired = stats.ttest_rel(better.double().mean(1), base.double().mean(1)).confidence_interval(0.95)
    assert second.val_loss_diff_base_lo == pytest.approx(paired.low, rel=1e-9)
    assert second.val_loss_diff_base_hi == pytest.approx(paired.high, rel=1e-9)
    assert second.val_loss - first.val_loss == pytest.approx(second.val_loss_diff_base, rel=1e-6)
    assert second.val_loss_diff_base_hi < 0, "the gain is small beside the spread of the images, and yet sure"


def test_a_single_image_has_a_difference_but_no_interval():
    _, row = curve_rows({0: torch.full((1, 2), 0.5), 9: torch.full((1, 2), 0.25)})
    assert row.val_loss_diff_base == -0.25
    assert row.val_loss_diff_base_lo is row.val_loss_diff_base_hi is None


def test_the_curve_over_timesteps_is_the_mean_over_the_images():
    rows = timestep_rows({0: torch.tensor([[0.5, 0.25], [0.25, 0.75]])}, [62, 187])
    assert [(row.step, row.timestep, row.loss) for row in rows] == [(0, 62, 0.375), (0, 187, 0.5)]


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_images_and_the_step(bad):
    losses = torch.full((3, 2), 0.1)
    require_finite_losses(losses, ["a", "b", "c"], step=50)
    losses[1, 0] = bad
    with pytest.raises(PipelineError, match=r"step 50.*not finite for 1 of 3 val images: b\. .*learning_rate"):
        require_finite_losses(losses, ["a", "b", "c"], step=50)
    with pytest.raises(PipelineError, match="the base model itself"):
        require_finite_losses(losses, ["a", "b", "c"], step=0)


def test_more_timesteps_than_the_base_model_has_are_refused() -> None:
    assert fixed_timesteps(8, n_train_timesteps=8) == tuple(range(8))
    with pytest.raises(PipelineError, match=r"train\.validation_timesteps is 9, .* has 8: lower it"):
        fixed_timesteps(9, n_train_timesteps=8)
