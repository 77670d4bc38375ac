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
from loupe.metrics.row_parts import row_parts

LEAST_IMAGES = 2
"""A covariance needs two."""


def frechet_score(images: ImageSet, real: RealPhotos) -> float:
    """Return the squared Fréchet distance of the images from the real ones.

    Raises TooFewImagesError when either side has fewer than two.
    """
    require_images(images, LEAST_IMAGES, "a Fréchet distance")
    require_images(real.held_out, LEAST_IMAGES, "the real side of a Fréchet distance")
    return frechet_distance(images.array(FEATURES), real.held_out.array(FEATURES))


def frechet_resamples(images: ImageSet, real: RealPhotos, weights_RN: NDArray) -> Array:
    """Return the distance from `real` under each resample: image n weighs weights_RN[r, n].

    Each is biased as that number of images makes it, and repeated images narrow the cloud: the values themselves are no
    bootstrap of the distance, whose interval would leave the truth out.
    """
    require_images(real.held_out, LEAST_IMAGES, "the real side of a Fréchet distance")
    return frechet_distance_resamples(images.array(FEATURES), real.held_out.array(FEATURES), weights_RN)


def frechet_distance(features_ND: NDArray, real_MD: NDArray) -> float:
    """Return the squared Fréchet distance between Gaussians fitted to two sets of features; computed in float64.

    A tiny negative value for equal sets is rounding and is not clipped.
    """
    few = min(len(features_ND), len(real_MD)) <= features_ND.shape[1]
    trace_root = (trace_root_by_cross_gram if few else trace_root_by_eigenvalues)(features_ND, real_MD)
    shift = _mean(features_ND) - _mean(real_MD)
    return float(shift @ shift + _total_variance(features_ND) + _total_variance(real_MD) - 2 * trace_root)


def trace_root_by_cross_gram(a_ND: NDArray, b_MD: NDArray) -> float:
    """Return tr (S_a S_b)^(1/2) as the nuclear norm of A B^T / sqrt((n-1)(m-1)), A and B centred.

    The non-zero eigenvalues of S_a S_b are the squared singular values of that matrix, so this is exact; for
    N < D it avoids every D x D matrix and every square root of a singular one.
    """
    mean, b = _mean(a_ND), _centred(b_MD)
    cross = np.concatenate([(a_ND[part] - mean) @ b.T for part in row_parts(len(a_ND))])
    cross /= np.sqrt((len(a_ND) - 1) * (len(b_MD) - 1))
    return float(np.linalg.svd(cross, compute_uv=False).sum())


def trace_root_by_eigenvalues(a_ND: NDArray, b_MD: NDArray) -> float:
    """Return tr (S_a S_b)^(1/2) from the eigenvalues of S_a^(1/2) S_b S_a^(1/2), which is symmetric."""
    values, vectors = np.linalg.eigh(_covariance(a_ND))
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return float(np.sqrt(np.clip(np.linalg.eigvalsh(root @ _covariance(b_MD) @ root), 0, None)).sum())


def frechet_distance_resamples(features_ND: NDArray, real_MD: NDArray, weights_RN: NDArray) -> Array:
    """Return [R] distances where features_ND[n] weighs weights_RN[r, n]; NaN where a resample has under two images.

    The real side is reduced once to a factor F with F^T F = S_real, so that a resample costs one eigenvalue problem
    of the size of its distinct images or of the feature dimensions, whichever is smaller.
    """
    mean, factor, variance_of_real = _real_side(real_MD)
    totals = np.sum(weights_RN, axis=1, dtype=np.float64)
    projected, squared_norms = np.empty((len(features_ND), len(factor))), np.empty(len(features_ND))
    means = np.zeros((len(weights_RN), len(mean)))
    for part in row_parts(len(features_ND)):
        features = features_ND[part] - mean
        projected[part] = features @ factor.T
        squared_norms[part] = np.einsum("nd,nd->n", features, features)
        means += (weights_RN[:, part] / np.maximum(totals, 1)[:, None]) @ features
    shifts = np.einsum("rd,rd->r", means, means)

    def distance(r: int) -> float:
        n = totals[r]
        if n < LEAST_IMAGES:
            return np.nan
        drawn = np.flatnonzero(weights_RN[r])
        weights = np.asarray(weights_RN[r, drawn], dtype=np.float64)
        variance = (weights @ squared_norms[drawn] - n * shifts[r]) / (n - 1)
        spread = projected[drawn]
        spread -= weights / n @ spread
        spread *= np.sqrt(weights / (n - 1))[:, None]
        return float(shifts[r] + variance - 2 * _nuclear_norm(spread))

    # BLAS threads cost more than they give on matrices this small; whole resamples side by side do pay.
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        distances = np.fromiter(pool.map(distance, range(len(totals))), dtype=np.float64, count=len(totals))
    return distances + variance_of_real


@once_per_arrays(keep=4)
def _real_side(real_MD: NDArray) -> tuple[Array, Array, float]:
    """Return mean [D], factor F with F^T F the covariance, and total variance of the real features."""
    factor = np.linalg.qr(_centred(real_MD) / np.sqrt(len(real_MD) - 1), mode="r")
    return _mean(real_MD), factor, _total_variance(real_MD)


def _nuclear_norm(matrix: Array) -> float:
    """Sum of singular values through the smaller Gram matrix: 1e-8 of the largest is lost, far below a draw's noise."""
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return float(np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None)).sum())


def _mean(features_ND: NDArray) -> Array:
    """Return [D] float64; ValueError where there is no covariance."""
    if features_ND.ndim != 2 or len(features_ND) < LEAST_IMAGES:
        raise ValueError(f"features must be [N, D] with N >= {LEAST_IMAGES}; got shape {features_ND.shape}")
    return features_ND.mean(axis=0, dtype=np.float64)


def _centred(features_ND: NDArray) -> Array:
    return features_ND - _mean(features_ND)


def _total_variance(features_ND: NDArray) -> float:
    mean, total = _mean(features_ND), 0.0
    for part in row_parts(len(features_ND)):
        centred = features_ND[part] - mean
        total += float(np.einsum("nd,nd->", centred, centred))
    return total / (len(features_ND) - 1)


def _covariance(features_ND: NDArray) -> Array:
    centred = _centred(features_ND)
    return centred.T @ centred / (len(features_ND) - 1)
