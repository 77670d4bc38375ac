import dataclasses
import math

import pytest
import torch

from loupe.diffusion.adapter import adapter_state
from loupe.diffusion.batches import make_batch
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.model_loading import load_noise_scheduler, load_unet
from loupe.diffusion.noise import draw, visits
from loupe.diffusion.train_settings import learning_rate_at, smoothed_loss
from loupe.errors import PipelineError
from tests.unit.diffusion.tiny_training import tiny_examples, tiny_settings, tiny_trainer


def train(trainer, until):
    return list(trainer.run(until))


def gradients(trainer):
    return {key: parameter.grad.clone() for key, parameter in trainer.parameters.items()}


def total_norm(tensors):
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors.values()))


def test_clipping_clips(tiny_base_model):
    limit = 1e-3
    free, clipped = (tiny_trainer(tiny_base_model, max_grad_norm=norm) for norm in (1e9, limit))
    (free_row,), (clipped_row,) = train(free, 1), train(clipped, 1)

    assert free_row.grad_norm == clipped_row.grad_norm == pytest.approx(total_norm(gradients(free)), rel=1e-5)
    assert free_row.grad_norm > 2 * limit
    assert total_norm(gradients(clipped)) == pytest.approx(limit, rel=1e-3)


def test_accumulation_gives_the_gradient_of_the_whole_batch(tiny_base_model):
    whole = tiny_trainer(tiny_base_model, batch_size=4)
    parts = tiny_trainer(tiny_base_model, batch_size=2, gradient_accumulation_steps=2)
    (row,), (part_row,) = train(whole, 1), train(parts, 1)

    assert part_row.loss == pytest.approx(row.loss, rel=1e-5)
    for key, gradient in gradients(whole).items():
        assert torch.allclose(gradients(parts)[key], gradient, rtol=1e-3, atol=1e-7)


def test_weights_stay_float32_under_bfloat16_and_small_updates_arrive(tiny_base_model):
    policy = DevicePolicy("cpu", "bfloat16", "test")
    trainer = tiny_trainer(tiny_base_model, policy=policy, learning_rate=1e-5, lr_warmup_steps=0)
    assert trainer.unet.dtype is torch.bfloat16
    with torch.no_grad():
        for parameter in trainer.parameters.values():
            parameter.copy_(0.02 * parameter.sign() + 0.02 * (parameter == 0))
    before = adapter_state(trainer.unet)

    train(trainer, 2)

    assert {parameter.dtype for parameter in trainer.parameters.values()} == {torch.float32}
    assert {gradient.dtype for gradient in gradients(trainer).values()} == {torch.float32}
    assert {value.dtype for value in trainer.state().optimizer.values()} == {torch.float32}
    after = trainer.state().adapter
    moved = [float((after[key] != before[key]).float().mean()) for key in after]
    # A bfloat16 weight of 0.02 cannot move by 1e-5: its neighbours are 1.2e-4 away.
    assert torch.tensor(0.02, dtype=torch.bfloat16) - 1e-5 == torch.tensor(0.02, dtype=torch.bfloat16)
    assert min(moved) > 0.5


def test_the_base_weights_never_change(tiny_base_model):
    trainer = tiny_trainer(tiny_base_model)
    before = {name: p.clone() for name, p in trainer.unet.named_parameters() if "lora_" not in name}

    train(trainer, 3)

    after = dict(trainer.unet.named_parameters())
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert not any(after[name].requires_grad for name in before)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_going_on_from_a_state_changes_nothing(tiny_base_model, stop):
    """Six examples in batches of four: the epoch ends inside a step."""
    undisturbed = tiny_trainer(tiny_base_model)
    rows = train(undisturbed, 6)
    first = tiny_trainer(tiny_base_model)
    train(first, stop)
    second = tiny_trainer(tiny_base_model)
    second.restore(first.state())
    train(first, stop + 1)  # the state must be a copy: going on with the first trainer must not be felt

    train(second, 6)

    assert second.rows == rows
    assert_states_equal(second.state(), undisturbed.state())


def assert_states_equal(left, right):
    for name in ("adapter", "average", "optimizer"):
        tensors, others = getattr(left, name), getattr(right, name)
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[key], others[key]) for key in tensors)
    assert (left.scaler, left.rows) == (right.scaler, right.rows)


def test_the_schedule_does_not_see_max_steps_when_constant(tiny_base_model):
    short, long = tiny_trainer(tiny_base_model, max_steps=3), tiny_trainer(tiny_base_model, max_steps=30)

    assert train(short, 3) == train(long, 3)


@pytest.mark.parametrize("bad", ["mean", "embeddings"])
def test_a_loss_that_is_not_finite_names_step_and_images_and_changes_no_weight(tiny_base_model, bad):
    examples = tiny_examples(6)
    getattr(examples, bad)[3 if bad == "mean" else 4] = math.nan  # both belong to image3
    trainer = tiny_trainer(tiny_base_model, examples=examples, batch_size=1, caption_dropout=0.0)
    with pytest.raises(PipelineError, match=r"step \d+: loss nan.* Its images: image3\.") as caught:
        train(trainer, 6)

    assert f"step {trainer.step + 1}:" in str(caught.value)
    assert all(bool(weight.isfinite().all()) for weight in trainer.state().adapter.values())


def test_a_batch_pairs_each_image_with_its_own_caption(tiny_base_model):
    trainer = tiny_trainer(tiny_base_model, caption_dropout=0.0)
    examples = dataclasses.replace(tiny_examples(), std=torch.zeros(6, 4, 8, 8))
    alphas_cumprod = torch.ones(1000)  # no noise: the noisy latent is the clean one
    schedule = dataclasses.replace(trainer.schedule, alphas_cumprod=alphas_cumprod)

    for first in (0, 4, 8, 400):
        batch = make_batch(examples, first, schedule=schedule, settings=trainer.settings)
        for noisy, text in zip(batch.noisy, batch.text, strict=True):
            row = next(i for i in range(6) if torch.allclose(noisy, examples.mean[i] * schedule.scaling_factor))
            assert torch.equal(text, examples.embeddings[examples.caption_index[row]])


def test_a_mirrored_visit_keeps_its_image_caption_and_noise(tiny_base_model):
    trainer, examples = tiny_trainer(tiny_base_model, caption_dropout=0.0), tiny_examples()
    schedule, n_mirrored = dataclasses.replace(trainer.schedule, alphas_cumprod=torch.ones(1000)), 0
    settings = tiny_settings(caption_dropout=0.0, batch_size=60, random_flip=True)
    batch = make_batch(examples, 0, schedule=schedule, settings=settings)

    for noisy, text, visit in zip(batch.noisy, batch.text, visits(0, 60, n_examples=6, seed=0), strict=True):
        drawn = draw(
            seed=0, epoch=visit.epoch, image_id=examples.image_ids[visit.index], shape=(4, 8, 8), n_timesteps=1000,
            dropout=0.0, offset=0.0, flips=True,
        )  # fmt: skip
        seen = examples.mirrored if drawn.mirrors else examples
        clean = seen.mean[visit.index] + seen.std[visit.index] * drawn.posterior_noise
        torch.testing.assert_close(noisy, clean * schedule.scaling_factor)
        assert torch.equal(text, examples.embeddings[examples.caption_index[visit.index]])
        n_mirrored += drawn.mirrors
    assert 15 < n_mirrored < 45


def test_random_flips_need_mirrored_examples(tiny_base_model):
    trainer, examples = tiny_trainer(tiny_base_model), dataclasses.replace(tiny_examples(), mirrored=None)
    with pytest.raises(ValueError, match="read the examples with their mirrored photos"):
        make_batch(examples, 0, schedule=trainer.schedule, settings=tiny_settings(batch_size=16, random_flip=True))


def test_a_dropped_caption_is_the_empty_one(tiny_base_model):
    trainer = tiny_trainer(tiny_base_model)
    for share, expected in ((1.0, True), (0.0, False)):
        settings = tiny_settings(caption_dropout=share)
        batch = make_batch(tiny_examples(), 0, schedule=trainer.schedule, settings=settings)
        assert all(torch.equal(text, tiny_examples().embeddings[0]) is expected for text in batch.text)


def test_each_epoch_draws_from_the_posterior_anew(tiny_base_model):
    trainer = tiny_trainer(tiny_base_model)
    schedule = dataclasses.replace(trainer.schedule, alphas_cumprod=torch.ones(1000))
    settings = tiny_settings(batch_size=1)
    examples = tiny_examples(1)
    draws = torch.cat([make_batch(examples, i, schedule=schedule, settings=settings).noisy for i in range(200)])

    assert torch.allclose(draws.mean(0), examples.mean[0] * 0.18215, atol=0.01)
    assert draws.std(0).mean() == pytest.approx(0.1 * 0.18215, rel=0.05)


def test_the_target_follows_the_prediction_type(tiny_base_model):
    trainer = tiny_trainer(tiny_base_model)
    batches = {
        kind: make_batch(
            tiny_examples(),
            0,
            schedule=dataclasses.replace(trainer.schedule, prediction_type=kind),
            settings=tiny_settings(snr_gamma=5.0),
        )
        for kind in ("epsilon", "v_prediction")
    }
    noise, v = batches["epsilon"].target, batches["v_prediction"].target
    a = trainer.schedule.alphas_cumprod[batches["epsilon"].timesteps][:, None, None, None]

    # sqrt(1 - a) x_t + sqrt(a) v is the noise again.
    noisy = batches["epsilon"].noisy
    assert torch.allclose((1 - a).sqrt() * noisy + a.sqrt() * v, noise, atol=1e-5)
    assert not torch.equal(batches["epsilon"].weights, batches["v_prediction"].weights)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("gamma", [None, 0.1])
def test_the_loss_of_a_step_is_that_of_diffusers_noising_and_the_papers_weights(
    tiny_base_model, prediction_type, gamma
):
    """A fresh adapter does nothing, so the base model predicts; min-SNR weights as in Hang et al. 2023, section 3.4."""
    knobs = {"seed": 3, "caption_dropout": 0.5, "noise_offset": 0.1}
    knobs |= {"batch_size": 2, "gradient_accumulation_steps": 3, "prediction_type": prediction_type, "snr_gamma": gamma}
    trainer = tiny_trainer(tiny_base_model, **knobs)
    examples, scheduler = trainer.examples, load_noise_scheduler(tiny_base_model)
    unet = load_unet(tiny_base_model, device="cpu", dtype=torch.float32)
    losses, weights = [], []
    for visit in visits(0, 6, n_examples=6, seed=3):
        drawn = draw(
            seed=3, epoch=0, image_id=examples.image_ids[visit.index], shape=(4, 8, 8), n_timesteps=1000, dropout=0.5,
            offset=0.1, flips=False,
        )  # fmt: skip
        clean = 0.18215 * (examples.mean[visit.index] + examples.std[visit.index] * drawn.posterior_noise)[None]
        noise, timestep = drawn.noise[None], torch.tensor([drawn.timestep])
        of_epsilon = prediction_type == "epsilon"
        target = noise if of_epsilon else scheduler.get_velocity(clean, noise, timestep)
        noisy = scheduler.add_noise(clean, noise, timestep)
        text = examples.embeddings[0 if drawn.drops_caption else examples.caption_index[visit.index]][None]
        with torch.no_grad():
            predicted = unet(noisy, timestep, encoder_hidden_states=text).sample
        a = float(scheduler.alphas_cumprod[timestep])
        snr = a / (1 - a)
        weights.append(1.0 if gamma is None else min(snr, gamma) / (snr if of_epsilon else snr + 1))
        losses.append(float((predicted - target).square().mean()))

    (row,) = train(trainer, 1)
    assert row.loss == pytest.approx(sum(w * x for w, x in zip(weights, losses, strict=True)) / 6, rel=1e-4)
    assert gamma is None or abs(row.loss / (sum(losses) / 6) - 1) > 0.01  # the weights are felt


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_the_learning_rate_is_diffusers_counted_from_one(name):
    from diffusers.optimization import get_scheduler

    warmup, steps = 4, 20
    settings = tiny_settings(lr_scheduler=name, lr_warmup_steps=warmup, max_steps=steps, learning_rate=1.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs_name = "constant_with_warmup" if name == "constant" else name
    theirs = get_scheduler(theirs_name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    factors = []
    for _ in range(steps):
        factors.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()

    ours = [learning_rate_at(step, settings) for step in range(1, steps + 1)]

    # Theirs wastes the first step on a rate of 0; ours reaches the peak one step earlier and then is the same.
    assert ours[: warmup - 1] == pytest.approx(factors[1:warmup])
    assert ours[warmup - 1] == 1
    assert ours[warmup:] == pytest.approx(factors[warmup:])


def test_warm_up_counts_optimizer_steps_not_forward_passes(tiny_base_model):
    trainer = tiny_trainer(tiny_base_model, batch_size=2, gradient_accumulation_steps=2, lr_warmup_steps=2)

    assert [row.learning_rate for row in train(trainer, 3)] == pytest.approx([0.005, 0.01, 0.01])


def test_the_smoothed_loss_starts_at_the_first_and_forgets():
    assert smoothed_loss(0.0, 3.0, step=1) == pytest.approx(3.0)
    value = 0.0
    for step in range(1, 2000):
        value = smoothed_loss(value, 3.0 if step < 1000 else 1.0, step=step)
    assert value == pytest.approx(1.0)


def test_it_learns_captions_and_a_swap_of_captions_hurts(tiny_base_model):
    """Overfit four images with four captions: the loss on fixed noise falls far below the base's, and rises on a swap.

    A random base model is a poor start, so more layers than attention get an adapter; with v-prediction the target at
    high noise is the clean image, which the caption alone can tell.
    """
    examples = tiny_examples(4)
    layers = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "conv_in", "conv_out", "proj_in", "proj_out")
    options = {"rank": 8, "target_modules": layers, "caption_dropout": 0.0, "prediction_type": "v_prediction"}
    trainer = tiny_trainer(tiny_base_model, examples=examples, batch_size=8, **options)
    before = fixed_loss(trainer, examples)

    train(trainer, 60)

    swapped = dataclasses.replace(examples, caption_index=examples.caption_index.roll(1))
    after = fixed_loss(trainer, examples)
    assert after < 0.5 * before
    assert fixed_loss(trainer, swapped) > max(before, 3 * after)


def fixed_loss(trainer, examples):
    """Mean loss on fixed, high noise."""
    settings = tiny_settings(seed=99, batch_size=128, caption_dropout=0.0)
    batch = make_batch(examples, 0, schedule=trainer.schedule, settings=settings)
    is_high = batch.timesteps > 700
    with torch.no_grad():
        predicted = trainer.unet(batch.noisy, batch.timesteps, encoder_hidden_states=batch.text).sample
    return float((predicted - batch.target)[is_high].square().mean())


def test_a_float16_step_that_overflows_is_computed_again_and_skips_no_example(tiny_base_model):
    policy = DevicePolicy("cpu", "float16", "test")
    calm, overflowing = (tiny_trainer(tiny_base_model, policy=policy) for _ in range(2))
    calm.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    overflowing.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)

    rows, others = train(calm, 2), train(overflowing, 2)

    assert overflowing.scaler.get_scale() < 2.0**40
    assert [row.loss for row in others] == pytest.approx([row.loss for row in rows], rel=1e-3)
    restored = tiny_trainer(tiny_base_model, policy=policy)
    restored.restore(overflowing.state())
    assert restored.scaler.get_scale() == overflowing.scaler.get_scale()
