"""KID and CMMD: by hand, against torchmetrics, unbiased, and resampled by prompt without bias."""

from __future__ import annotations

import numpy as np
import pytest

from loupe.metrics.image_set import CLIP_IMAGE, TooFewImagesError
from loupe.metrics.kernel_distance import (
    cmmd_resamples,
    cmmd_score,
    cubic_kernel,
    gaussian_kernel,
    kid_resamples,
    kid_score,
    squared_mmd,
)
from tests.unit.metrics.image_sets import image_set, real_photos, with_features


def cloud(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def kid(x: np.ndarray, y: np.ndarray) -> float:
    return kid_score(with_features(x), real_photos(with_features(y)))


def cmmd(x: np.ndarray, y: np.ndarray) -> float:
    return cmmd_score(
        image_set(len(x), **{CLIP_IMAGE: x}), real_photos(image_set(len(y), **{CLIP_IMAGE: y}))
    )  # fmt: skip


def test_kid_by_hand() -> None:
    """k = (xy + 1)^3: the pairs within give 1 and 1, the four across 1, 1, 1 and 27: 1 + 1 - 2 * 7.5 = -13."""
    assert kid(np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])) == pytest.approx(-13_000)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 25)])
def test_torchmetrics_and_loops_over_pairs_agree(n: int, m: int) -> None:
    import torch
    from torchmetrics.image.kid import poly_mmd

    x, y = cloud(n, 16, 0, 0.2), cloud(m, 16, 1)
    if n == m:
        found = float(poly_mmd(torch.from_numpy(x), torch.from_numpy(y)))
        assert kid(x, y) == pytest.approx(1000 * found, rel=1e-9)
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b]
    within = np.mean([(x[a] @ x[b] / 16 + 1) ** 3 for a, b in pairs])
    within_real = np.mean([(y[a] @ y[b] / 16 + 1) ** 3 for a in range(m) for b in range(m) if a != b])
    across = np.mean([(a @ b / 16 + 1) ** 3 for a in x for b in y])
    assert kid(x, y) == pytest.approx(1000 * (within + within_real - 2 * across), rel=1e-9)


def test_no_difference_gives_zero_on_average_with_both_signs_whatever_n() -> None:
    for n in (8, 64):
        values = np.array([kid(cloud(n, 8, seed), cloud(40, 8, 1000 + seed)) for seed in range(200)])
        assert (values < 0).any()
        assert (values > 0).any()
        assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))


def test_few_photos_are_all_used_no_subset_is_drawn_and_none_is_asked_for() -> None:
    """torchmetrics' default asks for subsets of 1000; 427 photos and 64 pictures are enough for all their pairs."""
    x, y = cloud(64, 16, 31, 0.2), cloud(427, 16, 32)
    within = np.mean([(x[a] @ x[b] / 16 + 1) ** 3 for a in range(64) for b in range(64) if a != b])
    gram = (y @ y.T / 16 + 1) ** 3
    within_real = (gram.sum() - np.trace(gram)) / (427 * 426)
    expected = 1000 * (within + within_real - 2 * ((x @ y.T / 16 + 1) ** 3).mean())
    assert kid(x, y) == pytest.approx(expected, rel=1e-9)
    assert kid(x, y) == kid(x, y), "nothing is drawn at random"


def test_the_same_photos_on_both_sides_give_slightly_less_than_zero() -> None:
    x = cloud(50, 16, 2)
    assert kid(x, x) < 0


def test_cmmd_is_unbiased_and_blind_to_length() -> None:
    x, y = cloud(30, 12, 3, 0.5), cloud(20, 12, 4)
    assert cmmd(7 * x, y) == pytest.approx(cmmd(x, y), rel=1e-9)
    values = np.array([cmmd(cloud(20, 6, seed), cloud(30, 6, 1000 + seed)) for seed in range(200)])
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))


def test_cmmd_is_ten_times_the_squared_mean_shift_to_first_order() -> None:
    """Unit vectors are near to each other where sigma is 10, so k is almost linear: 1000 MMD^2 = 10 |shift|^2."""
    x, y = cloud(1500, 8, 5, 1.0), cloud(1500, 8, 6)
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y)]
    shift = unit[0].mean(axis=0) - unit[1].mean(axis=0)
    assert cmmd(x, y) == pytest.approx(10 * shift @ shift, rel=0.02)


def test_kernels_of_known_points() -> None:
    assert gaussian_kernel(np.zeros((1, 2)), np.array([[3.0, 4.0]]), sigma=5.0) == pytest.approx(np.exp(-0.5))
    assert cubic_kernel(np.array([[1.0, 1.0]]), np.array([[1.0, 3.0]])) == pytest.approx(27.0)


@pytest.mark.parametrize("seeds", [1, 4])
def test_taking_every_prompt_once_is_the_score_itself(seeds: int) -> None:
    images, real = with_features(cloud(24, 8, 7, 0.3), seeds=seeds), real_photos(with_features(cloud(30, 8, 8)))
    assert kid_resamples(images, real, np.ones((1, 24)))[0] == pytest.approx(kid_score(images, real), rel=1e-9)
    clip = image_set(24, seeds=seeds, **{CLIP_IMAGE: cloud(24, 8, 7, 0.3)})
    photos = real_photos(image_set(30, **{CLIP_IMAGE: cloud(30, 8, 8)}))
    assert cmmd_resamples(clip, photos, np.ones((1, 24)))[0] == pytest.approx(cmmd_score(clip, photos), rel=1e-9)


def test_the_mean_over_resamples_is_the_score_where_pictures_of_a_prompt_are_alike() -> None:
    """Pairing copies with each other, or copies of a prompt, would push every resample upwards."""
    rng = np.random.default_rng(9)
    features = np.repeat(rng.normal(size=(16, 8)), 4, axis=0) + 0.2 * rng.normal(size=(64, 8))
    images, real = with_features(features, seeds=4), real_photos(with_features(cloud(50, 8, 10)))
    counts = np.repeat(rng.multinomial(16, np.full(16, 1 / 16), size=4000), 4, axis=1)
    draws = kid_resamples(images, real, counts)
    x = images.array("inception.features")
    naive = [
        1000 * squared_mmd(a, real_x, cubic_kernel)
        for real_x in [real.held_out.array("inception.features")]
        for a in (np.repeat(x, row, axis=0) for row in counts[:200])
    ]
    error = draws.std() / np.sqrt(len(draws))
    assert abs(draws.mean() - kid_score(images, real)) < 5 * error
    assert np.mean(naive) - kid_score(images, real) > 20 * error


def test_the_interval_covers_as_often_as_it_claims() -> None:
    rng = np.random.default_rng(11)
    real = real_photos(with_features(rng.normal(size=(60, 4))))
    centre = np.full(4, 0.6)

    def draw() -> np.ndarray:
        return np.repeat(rng.normal(size=(32, 4)), 2, axis=0) + centre + 0.5 * rng.normal(size=(64, 4))

    truth = np.mean([kid_score(with_features(draw(), seeds=2), real) for _ in range(400)])
    hits = 0
    for _ in range(200):
        images = with_features(draw(), seeds=2)
        counts = np.repeat(rng.multinomial(32, np.full(32, 1 / 32), size=300), 2, axis=1)
        lo, hi = np.percentile(kid_resamples(images, real, counts), [2.5, 97.5])
        hits += lo <= truth <= hi
    assert 0.85 <= hits / 200 <= 0.99


def test_a_resample_of_one_prompt_alone_has_no_value() -> None:
    images, real = with_features(cloud(6, 3, 12), seeds=3), real_photos(with_features(cloud(6, 3, 13)))
    counts = np.array([[2, 2, 2, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    assert np.isnan(kid_resamples(images, real, counts)).tolist() == [True, False]


def test_one_image_is_too_few() -> None:
    with pytest.raises(TooFewImagesError, match="KID needs at least 2 images; there are 1"):
        kid(cloud(1, 4, 0), cloud(9, 4, 1))
    with pytest.raises(TooFewImagesError, match="the real side of KID"):
        kid(cloud(9, 4, 0), cloud(1, 4, 1))
