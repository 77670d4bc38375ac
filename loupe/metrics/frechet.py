"""Fréchet distance between two clouds of features, alone and under bootstrap resamples. It extracts no features.

With features of Inception-2015-12-05 the squared Fréchet distance is FID (Heusel et al. 2017, arXiv:1706.08500):
|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), covariances with ddof = 1. It is biased upwards by about tr(S)/N,
more where N is small: compare values of equal N only.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from loupe.metrics.array_cache import once_per_arrays
from loupe.metrics.image_set import FEATURES, Array, ImageSet, RealPhotos, require_images

LEAST_IMAGES = 2
"""A covariance needs two."""


def frechet_score(images: ImageSet, real: RealPhotos) -> float:
    """Return the squared Fréchet distance of the images from the real ones.

    Raises TooFewImagesError when either side has fewer than two.
    """
    require_images(images, LEAST_IMAGES, "a Fréchet distance")
    require_images(real.held_out, LEAST_IMAGES, "the real side of a Fréchet distance")
    return frechet_distance(images.array(FEATURES), real.held_out.array(FEATURES))


def frechet_resamples(images: ImageSet, real: RealPhotos, counts_RN: NDArray) -> Array:
    """Return the distance from `real` under each resample: image n taken counts_RN[r, n] times.

    Only differences between checkpoints under the *same* counts are meaningful: repeated images narrow the cloud, so
    the distances themselves are biased (facts: a naive bootstrap interval of FID misses the truth).
    """
    require_images(real.held_out, LEAST_IMAGES, "the real side of a Fréchet distance")
    return frechet_distance_resamples(images.array(FEATURES), real.held_out.array(FEATURES), counts_RN)


def frechet_distance(features_ND: NDArray, real_MD: NDArray) -> float:
    """Return the squared Fréchet distance between Gaussians fitted to two sets of features; computed in float64.

    A tiny negative value for equal sets is rounding and is not clipped.
    """
    a, b = _float64(features_ND), _float64(real_MD)
    dimensions = a.shape[1]
    few = min(len(a), len(b)) < dimensions
    trace_root = trace_root_by_cross_gram(a, b) if few else trace_root_by_eigenvalues(a, b)
    shift = a.mean(axis=0) - b.mean(axis=0)
    return float(shift @ shift + _total_variance(a) + _total_variance(b) - 2 * trace_root)


def trace_root_by_cross_gram(a_ND: Array, b_MD: Array) -> float:
    """Return tr (S_a S_b)^(1/2) as the nuclear norm of A B^T / sqrt((n-1)(m-1)), A and B centred.

    The non-zero eigenvalues of S_a S_b are the squared singular values of that matrix, so this is exact; for
    N < D it avoids every D x D matrix and every square root of a singular one.
    """
    cross = _centred(a_ND) @ _centred(b_MD).T / np.sqrt((len(a_ND) - 1) * (len(b_MD) - 1))
    return float(np.linalg.svd(cross, compute_uv=False).sum())


def trace_root_by_eigenvalues(a_ND: Array, b_MD: Array) -> float:
    """Return tr (S_a S_b)^(1/2) from the eigenvalues of S_a^(1/2) S_b S_a^(1/2), which is symmetric."""
    values, vectors = np.linalg.eigh(_covariance(a_ND))
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return float(np.sqrt(np.clip(np.linalg.eigvalsh(root @ _covariance(b_MD) @ root), 0, None)).sum())


def frechet_distance_resamples(features_ND: NDArray, real_MD: NDArray, counts_RN: NDArray) -> Array:
    """Return [R] distances, features_ND[n] repeated counts_RN[r, n] times; NaN where a resample has under two images.

    The real side is reduced once to a factor F with F^T F = S_real, so that a resample costs one eigenvalue problem
    of the size of its distinct images or of the feature dimensions, whichever is smaller.
    """
    mean, factor, variance_of_real = _real_side(real_MD)
    features = _float64(features_ND) - mean
    counts = np.asarray(counts_RN, dtype=np.float64)
    projected = features @ factor.T
    squared_norms = np.einsum("nd,nd->n", features, features)
    means = (counts / np.maximum(counts.sum(axis=1), 1)[:, None]) @ features
    shifts = np.einsum("rd,rd->r", means, means)

    def distance(r: int) -> float:
        n = counts[r].sum()
        if n < LEAST_IMAGES:
            return np.nan
        drawn = np.flatnonzero(counts[r])
        weights = counts[r, drawn]
        variance = (weights @ squared_norms[drawn] - n * shifts[r]) / (n - 1)
        spread = projected[drawn]
        spread -= weights / n @ spread
        spread *= np.sqrt(weights / (n - 1))[:, None]
        return float(shifts[r] + variance - 2 * _nuclear_norm(spread))

    # BLAS threads cost more than they give on matrices this small; whole resamples side by side do pay.
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        distances = np.fromiter(pool.map(distance, range(len(counts))), dtype=np.float64, count=len(counts))
    return distances + variance_of_real


@once_per_arrays(keep=4)
def _real_side(real_MD: NDArray) -> tuple[Array, Array, float]:
    """Return mean [D], factor F with F^T F the covariance, and total variance of the real features."""
    real = _float64(real_MD)
    factor = np.linalg.qr(_centred(real) / np.sqrt(len(real) - 1), mode="r")
    return real.mean(axis=0), factor, _total_variance(real)


def _nuclear_norm(matrix: Array) -> float:
    """Sum of singular values through the smaller Gram matrix: 1e-8 of the largest is lost, far below a draw's noise."""
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return float(np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None)).sum())


def _float64(features: NDArray) -> Array:
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or len(array) < LEAST_IMAGES:
        raise ValueError(f"features must be [N, D] with N >= {LEAST_IMAGES}; got shape {array.shape}")
    return array


def _centred(features: Array) -> Array:
    return features - features.mean(axis=0)


def _total_variance(features: Array) -> float:
    return float(np.square(_centred(features)).sum() / (len(features) - 1))


def _covariance(features: Array) -> Array:
    centred = _centred(features)
    return centred.T @ centred / (len(features) - 1)
