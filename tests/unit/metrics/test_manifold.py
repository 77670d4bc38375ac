"""Precision, recall, density, coverage: direction, duplicates, their expected values, and resamples."""

from __future__ import annotations

import numpy as np
import pytest

from loupe.metrics.image_set import ImageSet, RealPhotos, TooFewImagesError
from loupe.metrics.manifold import (
    NEIGHBOURS,
    coverage_resamples,
    coverage_score,
    density_of_images,
    precision_of_images,
    recall_resamples,
    recall_score,
)
from tests.unit.metrics.image_sets import real_photos, with_features


def pair(x: np.ndarray, y: np.ndarray) -> tuple[ImageSet, RealPhotos]:
    return with_features(x), real_photos(with_features(y))


def cloud(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def by_definition(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    def radii(points: np.ndarray) -> np.ndarray:
        return np.array([np.sort(np.linalg.norm(points - p, axis=1))[NEIGHBOURS] for p in points])

    across = np.array([[np.linalg.norm(a - b) for b in y] for a in x])
    in_real = across < radii(y)
    in_fake = across < radii(x)[:, None]
    return in_real.any(1).mean(), in_fake.any(0).mean(), in_real.sum(1).mean() / NEIGHBOURS, in_real.any(0).mean()


def test_definitions_by_loops() -> None:
    images, real = pair(cloud(30, 3, 0) + 0.5, cloud(40, 3, 1))
    precision, recall, density, coverage = by_definition(cloud(30, 3, 0) + 0.5, cloud(40, 3, 1))
    assert precision_of_images(images, real).mean() == pytest.approx(precision)
    assert recall_score(images, real) == pytest.approx(recall)
    assert density_of_images(images, real).mean() == pytest.approx(density)
    assert coverage_score(images, real) == pytest.approx(coverage)


def test_a_collapsed_generator_is_precise_and_recalls_nothing() -> None:
    """A swapped implementation shows the opposite."""
    y = cloud(100, 4, 2)
    centre = y[np.linalg.norm(y, axis=1).argmin()]
    images, real = pair(centre + 1e-6 * cloud(50, 4, 3), y)
    assert precision_of_images(images, real).mean() == 1.0
    assert recall_score(images, real) <= 0.02
    assert coverage_score(images, real) < 0.3


def test_one_photo_repeated_is_precise_covers_next_to_nothing_and_recalls_nothing() -> None:
    y = cloud(427, 256, 10)
    middle = np.linalg.norm(y, axis=1).argsort()[200]
    images, real = pair(np.tile(y[middle], (64, 1)), y)
    assert precision_of_images(images, real).mean() == 1.0
    assert recall_score(images, real) == 0.0
    assert coverage_score(images, real) <= 0.02


def test_photos_that_occur_too_often_are_never_covered() -> None:
    y = np.repeat(cloud(5, 4, 4), NEIGHBOURS + 1, axis=0)
    images, real = pair(y, y)
    assert coverage_score(images, real) == 0.0
    assert precision_of_images(images, real).sum() == density_of_images(images, real).sum() == 0.0


def test_coverage_of_the_same_distribution_is_what_theory_says() -> None:
    """Naeem et al.: 1 - prod_{i<k} (M - 1 - i) / (M + N - 1 - i), here for N fakes and M reals."""
    n, m = 64, 100
    expected = 1 - np.prod([(m - 1 - i) / (m + n - 1 - i) for i in range(NEIGHBOURS)])
    values = [coverage_score(*pair(cloud(n, 6, seed), cloud(m, 6, 500 + seed))) for seed in range(40)]
    assert np.mean(values) == pytest.approx(expected, abs=0.03)


def test_density_of_the_same_distribution_is_one_on_average() -> None:
    values = [density_of_images(*pair(cloud(80, 6, seed), cloud(80, 6, 900 + seed))).mean() for seed in range(40)]
    assert np.mean(values) == pytest.approx(1.0, abs=0.05)


def test_resamples_look_at_the_distinct_images() -> None:
    x, y = cloud(20, 3, 5), cloud(30, 3, 6)
    images, real = pair(x, y)
    counts = np.random.default_rng(7).multinomial(20, np.full(20, 0.05), size=6)
    for r, row in enumerate(counts):
        distinct = with_features(x[row > 0])
        assert recall_resamples(images, real, counts)[r] == pytest.approx(recall_score(distinct, real))
        assert coverage_resamples(images, real, counts)[r] == pytest.approx(coverage_score(distinct, real))
    few = np.zeros((1, 20))
    few[0, :NEIGHBOURS] = 1
    assert np.isnan(recall_resamples(images, real, few)[0])


def test_how_many_are_needed_is_said() -> None:
    images, real = pair(cloud(NEIGHBOURS, 3, 8), cloud(20, 3, 9))
    with pytest.raises(TooFewImagesError, match="recall needs at least 6 images; there are 5"):
        recall_score(images, real)
    with pytest.raises(TooFewImagesError, match="the real side of precision"):
        precision_of_images(images, real_photos(with_features(cloud(NEIGHBOURS, 3, 9))))
