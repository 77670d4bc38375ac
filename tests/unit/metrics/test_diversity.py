"""Diversity within a prompt and the Vendi score: known values and direction under collapse."""

from __future__ import annotations

import numpy as np
import pytest

from loupe.metrics.diversity import diversity_of_images, vendi_of_rows, vendi_resamples, vendi_score
from loupe.metrics.image_set import ASKED_FAMILY, FEATURES, ImageSet, RealPhotos, TooFewImagesError
from tests.unit.metrics.image_sets import image_set, real_photos


def photos(features: np.ndarray, families: np.ndarray, seeds: int = 1) -> ImageSet:
    return image_set(len(features), seeds=seeds, **{FEATURES: features, ASKED_FAMILY: np.asarray(families)})


def cloud(n: int, seed: int, d: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + 5.0


TRAIN = photos(cloud(200, 0), np.repeat([0, 1], 100))
REAL = real_photos(TRAIN)


def test_real_photos_in_place_of_pictures_are_as_diverse_as_real() -> None:
    order = np.random.default_rng(1).permutation(100)[:80]
    picked = photos(TRAIN.array(FEATURES)[order], np.zeros(80, dtype=int), seeds=8)
    assert diversity_of_images(picked, REAL).mean() == pytest.approx(1.0, abs=0.05)


def test_one_picture_for_every_seed_has_no_diversity() -> None:
    same = photos(np.repeat(cloud(3, 2), 4, axis=0), np.zeros(12, dtype=int), seeds=4)
    assert diversity_of_images(same, REAL) == pytest.approx(np.zeros(12), abs=1e-12)


def test_values_by_hand() -> None:
    """Train photos at +-x and +-y around their mean: mean (1 - cos) is (4 * 2 + 8 * 1) / 12 = 4/3."""
    centre = np.array([3.0, 3.0])
    cross = centre + np.array([[1, 0], [-1, 0], [0, 1], [0, -1]] * 2)
    train = photos(cross, np.zeros(8, dtype=int))
    spread = 1 - (8 * 0 + 8 * 1 + 8 * -2) / 56  # of 56 ordered pairs: 8 alike (1), 16 opposite (-1), 32 across (0)
    images = photos(centre + np.array([[2.0, 0], [0, 7.0]]), np.zeros(2, dtype=int), seeds=2)
    assert diversity_of_images(images, real_photos(train)) == pytest.approx([1 / spread] * 2)


def test_prompts_without_a_colour_a_companion_or_photos_have_no_value() -> None:
    images = photos(cloud(7, 3), np.array([0, 0, -1, -1, 5, 5, 0]), seeds=2)
    values = diversity_of_images(images, REAL)
    assert np.isfinite(values[:2]).all()
    assert np.isnan(values[2:]).all()


def test_vendi_counts_orthogonal_rows() -> None:
    assert vendi_of_rows(np.eye(6), np.ones((1, 6)))[0] == pytest.approx(6.0)
    assert vendi_of_rows(np.tile(np.eye(6)[:1], (9, 1)), np.ones((1, 9)))[0] == pytest.approx(1.0)
    assert vendi_of_rows(np.repeat(np.eye(3), 4, axis=0), np.ones((1, 12)))[0] == pytest.approx(3.0)
    assert vendi_of_rows(np.eye(2), np.array([[3, 1]]))[0] == pytest.approx(
        np.exp(0.75 * np.log(4 / 3) + 0.25 * np.log(4))
    )
    assert np.isnan(vendi_of_rows(np.eye(2), np.zeros((1, 2)))[0])


@pytest.mark.parametrize(("n", "d"), [(200, 12), (30, 90), (3, 5)])
def test_whitening_is_that_of_a_full_decomposition(n: int, d: int) -> None:
    """Train photos in their own whitened space: K uncorrelated components of equal variance, the leading 95 %."""
    train = np.random.default_rng(7).normal(size=(n, d)) * np.linspace(3, 0.2, d) + 5
    images = photos(train, np.zeros(n, dtype=int))
    centred = train - train.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    shares = np.cumsum(singular**2) / (singular**2).sum()
    kept = min(int(np.searchsorted(shares, 0.95)) + 1, n - 1)
    expected = centred @ directions[:kept].T / singular[:kept]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    whole = vendi_of_rows(expected, np.ones((1, n)))[0]
    assert vendi_score(images, real_photos(images)) == pytest.approx(whole, rel=1e-8)


def test_vendi_falls_with_every_step_of_collapse() -> None:
    unique = cloud(100, 4)
    scores = []
    for kept in (100, 50, 20, 5, 1):
        images = photos(np.tile(unique[:kept], (100 // kept, 1)), np.zeros(100, dtype=int))
        scores.append(vendi_score(images, REAL))
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] == pytest.approx(1.0)


def test_vendi_resamples_equal_repeating_the_images() -> None:
    images = photos(cloud(20, 5), np.zeros(20, dtype=int))
    counts = np.random.default_rng(6).multinomial(20, np.full(20, 0.05), size=4)
    repeated = [vendi_score(images.rows(np.repeat(np.arange(20), row)), REAL) for row in counts]
    assert vendi_resamples(images, REAL, counts) == pytest.approx(repeated, rel=1e-9)


def test_vendi_needs_train_photos() -> None:
    with pytest.raises(TooFewImagesError, match="whitening of a Vendi score needs at least 3"):
        vendi_score(TRAIN, RealPhotos(train=TRAIN.rows([0, 1]), held_out=TRAIN))
