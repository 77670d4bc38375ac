"""Memorised pictures: copies are found and named, unseen photos are flagged as often as the null says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from loupe.metrics.image_set import TooFewImagesError
from loupe.metrics.memorisation import (
    copy_threshold,
    memorisation_null,
    memorised_bound,
    memorised_images,
    near_duplicates,
    nearest_train,
)
from tests.unit.metrics.image_sets import real_photos, with_features


def cloud(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)


TRAIN, HELD_OUT = with_features(cloud(150, 0)), with_features(cloud(75, 1))
REAL = real_photos(HELD_OUT, TRAIN)


def test_copies_raise_the_share_and_are_named() -> None:
    fresh = cloud(64, 2)
    copied = fresh.copy()
    copied[:20] = TRAIN.array("inception.features")[30:50]
    before, after = (memorised_images(with_features(x), REAL) for x in (fresh, copied))
    assert after[:20].all()
    assert after.mean() >= before.mean() + 0.2
    assert after.mean() > memorised_bound(64, 75, upper_tail=0.01) > before.mean()
    nearest = nearest_train(with_features(copied), TRAIN)
    assert nearest.row_N[:20].tolist() == list(range(30, 50))
    assert (nearest.distance_N[:20] == 0).all(), "a copy has no rounding"
    assert (nearest.distance_N[20:] > 0).all()


def test_unseen_pictures_are_flagged_as_often_as_the_null_says() -> None:
    shares = []
    for seed in range(300):
        real = real_photos(with_features(cloud(75, 10_000 + seed)), TRAIN)
        shares.append(memorised_images(with_features(cloud(64, 20_000 + seed)), real).mean())
    null = memorisation_null(REAL, 64)
    assert np.mean(shares) == pytest.approx(null.mean, abs=0.006)
    assert np.mean(np.array(shares) > memorised_bound(64, 75, upper_tail=0.01)) <= 0.03
    assert 0.9 <= np.mean([null.lo <= share <= null.hi for share in shares]) <= 1.0
    assert (null.n_a, null.n_b, null.n_draws) == (64, 75, 0)


def test_with_many_held_out_photos_the_bound_is_the_binomial_one() -> None:
    """facts: flag above .086 at N = 256, at 1 %."""
    assert memorised_bound(256, 2_000_000, upper_tail=0.01) == binom.ppf(0.99, 256, 0.05) / 256
    assert memorised_bound(256, 2_000_000, upper_tail=0.01) == pytest.approx(0.086, abs=0.001)
    assert memorised_bound(256, 75, upper_tail=0.01) > 0.086, "few held-out photos know the threshold less well"


def test_the_threshold_is_the_distance_of_one_held_out_photo() -> None:
    """Of 75 the third: 5 % of 76, rounded down."""
    distances = np.sort(nearest_train(HELD_OUT, TRAIN).distance_N)
    assert copy_threshold(REAL) == distances[2]
    few = real_photos(HELD_OUT.rows(range(4)), TRAIN)
    assert copy_threshold(few) == nearest_train(few.held_out, TRAIN).distance_N.min()


def test_without_photos_there_is_no_answer() -> None:
    with pytest.raises(TooFewImagesError, match="memorised photos needs at least 1"):
        memorised_images(HELD_OUT, real_photos(HELD_OUT.rows([]), TRAIN))
    with pytest.raises(TooFewImagesError, match="memorised photos needs at least 1"):
        nearest_train(HELD_OUT, TRAIN.rows([]))


def test_near_duplicates_among_the_held_out_photos_do_not_let_copies_pass() -> None:
    """Two of 55 would be the threshold: the second nearest decides."""
    train = TRAIN.array("inception.features")
    held_out = cloud(55, 1)
    held_out[:2] = train[:2] + 1e-3
    leaky, clean = (real_photos(with_features(photos), TRAIN) for photos in (held_out, cloud(55, 1)))
    copies = with_features(train[:64] + np.random.default_rng(3).normal(size=(64, 6)).astype(np.float32) / 50)
    assert (near_duplicates(leaky), near_duplicates(clean)) == (2, 0)
    assert memorised_images(copies, leaky).mean() > memorised_bound(64, 55, upper_tail=0.01)
    assert memorised_images(with_features(cloud(64, 2)), leaky).mean() <= memorised_bound(64, 55, upper_tail=0.01)
