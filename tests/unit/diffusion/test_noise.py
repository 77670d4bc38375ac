import pytest
import torch

from loupe.diffusion import noise
from loupe.diffusion.noise import add_noise, draw, epoch_order, min_snr_weights, velocity, visits

SHAPE = (4, 8, 8)


def a_draw(**changes):
    arguments = {
        "seed": 1,
        "epoch": 0,
        "image_id": "a",
        "shape": SHAPE,
        "n_timesteps": 1000,
        "dropout": 0.1,
        "offset": 0.0,
        "flips": False,
    }
    return draw(**{**arguments, **changes})


def test_every_epoch_visits_every_example_once_in_another_order():
    first, second = visits(0, 7, n_examples=7, seed=3), visits(7, 7, n_examples=7, seed=3)

    assert sorted(v.index for v in first) == sorted(v.index for v in second) == list(range(7))
    assert [v.index for v in first] != [v.index for v in second]
    assert {v.epoch for v in first} == {0}
    assert {v.epoch for v in second} == {1}


def test_the_position_alone_decides_a_visit():
    whole = visits(0, 30, n_examples=7, seed=3)

    assert visits(13, 5, n_examples=7, seed=3) == whole[13:18]
    assert visits(0, 30, n_examples=7, seed=4) != whole


def test_fewer_examples_than_a_step_wrap_into_the_next_epoch():
    seen = visits(0, 8, n_examples=3, seed=0)

    assert [v.epoch for v in seen] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert sorted(v.index for v in seen[3:6]) == [0, 1, 2]


def test_the_order_and_draws_ignore_the_global_generator():
    epoch_order.cache_clear()
    results = []
    for global_seed in (0, 1):
        epoch_order.cache_clear()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(global_seed)
            results.append((epoch_order(9, seed=1, epoch=2), a_draw()))

    (order, first), (same_order, second) = results
    assert order == same_order
    assert torch.equal(first.noise, second.noise)
    assert first.timestep == second.timestep


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 1}, {"image_id": "b"}])
def test_seed_epoch_and_image_each_change_the_noise(change):
    assert not torch.equal(a_draw().noise, a_draw(**change).noise)
    assert not torch.equal(a_draw().posterior_noise, a_draw(**change).posterior_noise)


@pytest.mark.parametrize("name", ["seed", "epoch", "image_id"])
def test_seed_epoch_and_image_each_change_timestep_dropped_caption_and_offset(name):
    """An image that had the same timestep in every epoch would hardly be learnt."""
    values = [str(n) if name == "image_id" else n for n in range(40)]
    draws = [a_draw(dropout=0.5, **{name: value}) for value in values]
    shifts = [a_draw(offset=0.5, **{name: value}).noise - d.noise for value, d in zip(values, draws, strict=True)]

    assert len({d.timestep for d in draws}) > 30
    assert 8 < sum(d.drops_caption for d in draws) < 32
    assert torch.stack(shifts).mean(dim=(2, 3)).std(dim=0).min() > 0.3


def test_what_is_added_to_a_latent_is_not_what_it_was_drawn_with():
    drawn = a_draw(shape=(4, 32, 32))
    together = torch.stack([drawn.noise.flatten(), drawn.posterior_noise.flatten()])
    assert float(torch.corrcoef(together)[0, 1]) == pytest.approx(0, abs=0.06)


def test_noise_offset_and_dropout_change_no_other_draw():
    plain, other = a_draw(), a_draw(offset=0.5, dropout=0.0)
    difference = other.noise - plain.noise

    assert (plain.timestep, other.drops_caption) == (other.timestep, False)
    assert torch.equal(plain.posterior_noise, other.posterior_noise)
    assert torch.allclose(difference, difference.mean(dim=(1, 2), keepdim=True).expand(SHAPE), atol=1e-6)


def test_half_of_the_visits_mirror_their_photo_and_nothing_else_changes():
    seen = [{"image_id": image_id, "epoch": epoch} for image_id in "abcde" for epoch in range(40)]
    flipping = [a_draw(flips=True, **visit) for visit in seen]
    plain = [a_draw(**visit) for visit in seen]

    assert not any(d.mirrors for d in plain)
    assert 0.4 < sum(d.mirrors for d in flipping) / len(seen) < 0.6
    for start in range(0, len(seen), 40):
        assert 8 < sum(d.mirrors for d in flipping[start : start + 40]) < 32, "a photo mirrored in every epoch, or none"
    for a, b in zip(flipping, plain, strict=True):
        assert (a.timestep, a.drops_caption) == (b.timestep, b.drops_caption)
        assert torch.equal(a.noise, b.noise)
        assert torch.equal(a.posterior_noise, b.posterior_noise)


def test_draws_have_the_right_distribution():
    draws = [a_draw(image_id=str(i), dropout=0.25, offset=0.5) for i in range(600)]
    timesteps = torch.tensor([d.timestep for d in draws], dtype=torch.float64)
    noises = torch.stack([d.noise for d in draws])

    assert timesteps.min() >= 0
    assert timesteps.max() <= 999
    assert timesteps.mean() == pytest.approx(499.5, abs=50)
    assert sum(d.drops_caption for d in draws) / len(draws) == pytest.approx(0.25, abs=0.07)
    assert noises.mean(dim=(2, 3)).std() == pytest.approx((0.5**2 + 1 / 64) ** 0.5, abs=0.03)
    assert torch.stack([d.posterior_noise for d in draws]).std() == pytest.approx(1, abs=0.02)


def test_noise_and_velocity_agree_with_diffusers():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler()
    timesteps = torch.tensor([0, 500, 999])
    generator = torch.Generator().manual_seed(0)
    clean, eps = torch.randn(3, *SHAPE, generator=generator), torch.randn(3, *SHAPE, generator=generator)
    a = scheduler.alphas_cumprod[timesteps]

    assert torch.allclose(add_noise(clean, eps, a), scheduler.add_noise(clean, eps, timesteps), atol=1e-6)
    assert torch.allclose(velocity(clean, eps, a), scheduler.get_velocity(clean, eps, timesteps), atol=1e-6)


def test_min_snr_weights_are_the_papers_on_both_predictions():
    a = torch.tensor([0.99, 0.9, 0.5, 0.1], dtype=torch.float64)
    snr = a / (1 - a)

    epsilon = min_snr_weights(a, gamma=5.0, prediction_type="epsilon")
    v = min_snr_weights(a, gamma=5.0, prediction_type="v_prediction")

    assert torch.allclose(epsilon, torch.minimum(snr, torch.tensor(5.0)) / snr)
    assert torch.allclose(v, torch.minimum(snr, torch.tensor(5.0)) / (snr + 1))


def test_min_snr_is_one_objective_whatever_is_predicted():
    """Both losses weigh the same error of the clean image alike: w_v |v|^2 = w_eps |eps|^2 for one x error."""
    a = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    error_of_x = 1.0
    error_of_eps = (a / (1 - a)).sqrt() * error_of_x
    error_of_v = error_of_x / (1 - a).sqrt()

    epsilon = min_snr_weights(a, gamma=5.0, prediction_type="epsilon") * error_of_eps**2
    v = min_snr_weights(a, gamma=5.0, prediction_type="v_prediction") * error_of_v**2

    assert torch.allclose(epsilon, v)


def test_zero_terminal_snr_gives_finite_weights():
    weights = min_snr_weights(torch.tensor([0.0]), gamma=5.0, prediction_type="epsilon")

    assert weights.item() == 1
    assert noise.min_snr_weights(torch.tensor([0.0]), gamma=5.0, prediction_type="v_prediction").item() == 0
