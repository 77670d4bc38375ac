"""Fréchet distance: closed forms, invariances, two routes and torchmetrics agree; resamples equal repeated rows."""

from __future__ import annotations

import numpy as np
import pytest

from loupe.metrics.frechet import (
    frechet_distance,
    frechet_distance_resamples,
    frechet_score,
    trace_root_by_cross_gram,
    trace_root_by_eigenvalues,
)
from loupe.metrics.image_set import FEATURES, ImageSet, TooFewImagesError
from tests.unit.metrics.image_sets import real_photos


def cloud(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def whitened(n: int, d: int, seed: int) -> np.ndarray:
    """Samples whose mean is exactly 0 and covariance (ddof 1) exactly I."""
    x = cloud(n, d, seed)
    x -= x.mean(axis=0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T


def test_identical_and_permuted_sets_have_distance_zero() -> None:
    x = cloud(256, 2048, 0)
    assert abs(frechet_distance(x, x[::-1])) < 1e-3


def test_repeated_set_is_nearly_but_not_exactly_zero() -> None:
    """Its covariance is that of the set times 3 (n - 1) / (3 n - 1): that alone makes the difference."""
    x = cloud(64, 16, 1)
    ratio = 3 * 63 / (3 * 64 - 1)
    expected = np.trace(np.cov(x.T)) * (1 - np.sqrt(ratio)) ** 2
    assert frechet_distance(np.tile(x, (3, 1)), x) == pytest.approx(expected, rel=1e-6)
    assert 1e-5 < expected < 1e-3


@pytest.mark.parametrize("sizes", [(1, 7, 64), (64,), (256,)])
def test_features_extracted_in_any_batches_and_order_give_one_distance(sizes: tuple[int, ...]) -> None:
    x, y = cloud(256, 32, 26), cloud(200, 32, 27) + 0.3
    for size in sizes:
        batches = [x[start : start + size] for start in range(0, 256, size)]
        assert frechet_distance(np.concatenate(batches[::-1]), y) == pytest.approx(frechet_distance(x, y), rel=1e-9)


def test_mean_shift_adds_its_square() -> None:
    x = whitened(400, 8, 2)
    assert frechet_distance(x + 0.5, x) == pytest.approx(2.0, rel=1e-9)


def test_scaled_covariance() -> None:
    x = whitened(400, 8, 3)
    assert frechet_distance(3 * x, x) == pytest.approx(32.0, rel=1e-9)


def test_two_by_two_case_with_correlation() -> None:
    x = whitened(300, 2, 4)
    a = x @ np.linalg.cholesky(np.array([[2.0, 1.0], [1.0, 2.0]])).T
    b = x @ np.linalg.cholesky(np.array([[3.0, -1.0], [-1.0, 1.0]])).T + np.array([1.0, 2.0])
    assert frechet_distance(a, b) == pytest.approx(6.397279504, abs=1e-8)


def test_unit_shift_in_2048_dimensions() -> None:
    x = cloud(300, 2048, 5)
    assert frechet_distance(x + 1, x) == pytest.approx(2048.0, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 60, 16), (20, 30, 64), (64, 90, 64)])
def test_laws_scale_rigid_motion_and_symmetry(n: int, m: int, d: int) -> None:
    a, b = cloud(n, d, 6), 1.3 * cloud(m, d, 7) + 0.2
    value = frechet_distance(a, b)
    rotation, _ = np.linalg.qr(cloud(d, d, 8))
    assert frechet_distance(10 * a, 10 * b) == pytest.approx(100 * value, rel=1e-12)
    assert frechet_distance(a @ rotation + 5, b @ rotation + 5) == pytest.approx(value, rel=1e-12)
    assert frechet_distance(b, a) == pytest.approx(value, rel=1e-12)


def test_collapsed_set_is_the_total_variance_plus_the_distance_to_the_mean() -> None:
    real = cloud(200, 32, 9)
    point = np.tile(real[3], (50, 1))
    expected = np.trace(np.cov(real.T)) + np.square(real[3] - real.mean(axis=0)).sum()
    assert frechet_distance(point, real) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(64, 90, 128), (300, 200, 32), (20, 400, 64)])
def test_the_two_routes_agree(n: int, m: int, d: int) -> None:
    a, b = cloud(n, d, 10), 1.2 * cloud(m, d, 11)
    assert trace_root_by_cross_gram(a, b) == pytest.approx(trace_root_by_eigenvalues(a, b), rel=1e-6)


def test_large_means_do_not_cost_precision() -> None:
    a, b = cloud(50, 16, 12), cloud(60, 16, 13)
    near = frechet_distance(1e-3 * a, 1e-3 * b)
    assert frechet_distance((1e-3 * a + 1000).astype(np.float64), 1e-3 * b + 1000) == pytest.approx(near, rel=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), [(64, 90, 128), (300, 200, 32)])
def test_torchmetrics_agrees(n: int, m: int, d: int) -> None:
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Identity(torch.nn.Module):
        num_features = d

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    a, b = cloud(n, d, 14), 1.1 * cloud(m, d, 15) + 0.3
    metric = FrechetInceptionDistance(feature=Identity()).set_dtype(torch.float64)
    metric.update(torch.from_numpy(b), real=True)
    metric.update(torch.from_numpy(a), real=False)
    assert frechet_distance(a, b) == pytest.approx(float(metric.compute()), abs=1e-3)


@pytest.mark.parametrize(("n", "m", "d"), [(24, 30, 64), (60, 80, 8), (20, 12, 16)])
def test_resamples_equal_repeating_the_rows(n: int, m: int, d: int) -> None:
    a, b = cloud(n, d, 16), 1.4 * cloud(m, d, 17) + 1
    rng = np.random.default_rng(18)
    counts = np.vstack([np.ones((1, n), dtype=int), rng.multinomial(n, np.full(n, 1 / n), size=5)])
    expected = [frechet_distance(np.repeat(a, row, axis=0), b) for row in counts]
    assert frechet_distance_resamples(a, b, counts) == pytest.approx(expected, rel=1e-6)


def test_a_resample_of_fewer_than_two_images_has_no_distance() -> None:
    counts = np.array([[1, 0, 0], [2, 0, 0], [0, 0, 0]])
    values = frechet_distance_resamples(cloud(3, 4, 19), cloud(9, 4, 20), counts)
    assert np.isfinite(values).tolist() == [False, True, False]


def test_a_naive_bootstrap_of_the_distance_misses_it_but_a_paired_difference_does_not() -> None:
    """Why fid_lo and fid_hi are taken from leaving prompts out: repeated images look like less diversity."""
    rng = np.random.default_rng(21)
    real, a = cloud(200, 32, 22), cloud(64, 32, 23)
    b = a + 0.4
    counts = rng.multinomial(64, np.full(64, 1 / 64), size=200)
    draws_a, draws_b = (frechet_distance_resamples(x, real, counts) for x in (a, b))
    point_a, point_b = frechet_distance(a, real), frechet_distance(b, real)
    assert np.percentile(draws_a, 2.5) > point_a
    lo, hi = np.percentile(draws_b - draws_a, [2.5, 97.5])
    assert lo < point_b - point_a < hi


def test_too_few_images_are_said_not_scored() -> None:
    many = ImageSet(cells=tuple((f"{i}", 0) for i in range(5)), arrays={FEATURES: cloud(5, 4, 24)})
    with pytest.raises(TooFewImagesError, match="at least 2 images; there are 1"):
        frechet_score(many.rows([0]), real_photos(many))
    with pytest.raises(TooFewImagesError, match="real side"):
        frechet_score(many, real_photos(many.rows([1])))
