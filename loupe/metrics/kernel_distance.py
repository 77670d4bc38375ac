"""Kernel distances between two clouds of features, unbiased: KID (cubic kernel) and CMMD (Gaussian kernel).

Squared maximum mean discrepancy as a U-statistic (Gretton et al. 2012): mean k(x, x') + mean k(y, y') - 2 mean k(x, y),
no image paired with itself. Its mean does not depend on the number of images, and it is slightly negative about as
often as positive when there is no difference; it is never clipped at 0. It extracts no features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loupe.metrics.image_set import CLIP_IMAGE, FEATURES, Array, ImageSet, RealPhotos, require_images

LEAST_IMAGES = 2
"""A pair needs two."""
SCALE = 1000
"""Both are shown times 1000, as in their papers."""
CMMD_SIGMA = 10.0
"""Of the Gaussian kernel on unit vectors (Jayasumana et al. 2024, arXiv:2401.09603)."""


def kid_score(images: ImageSet, real: RealPhotos) -> float:
    """Return 1000 KID (Binkowski et al. 2018, arXiv:1801.01401) over all pairs; no random subsets.

    Raises TooFewImagesError when either side has fewer than two.
    """
    return SCALE * squared_mmd(*_cubic_kernels(images, real))


def kid_resamples(images: ImageSet, real: RealPhotos, counts_RN: NDArray) -> Array:
    """Return 1000 KID under each resample of the prompts: image n taken counts_RN[r, n] times."""
    return SCALE * squared_mmd_resamples(*_cubic_kernels(images, real), images.prompt_index(), counts_RN)


def cmmd_score(images: ImageSet, real: RealPhotos) -> float:
    """Return 1000 CMMD on the image-text model's picture features.

    The paper's own code takes the biased form, which is above 0 for equal distributions; this is the unbiased one.
    Raises TooFewImagesError when either side has fewer than two.
    """
    return SCALE * squared_mmd(*_gaussian_kernels(images, real))


def cmmd_resamples(images: ImageSet, real: RealPhotos, counts_RN: NDArray) -> Array:
    """Return 1000 CMMD under each resample of the prompts: image n taken counts_RN[r, n] times."""
    return SCALE * squared_mmd_resamples(*_gaussian_kernels(images, real), images.prompt_index(), counts_RN)


def cubic_kernel(x_ND: Array, y_MD: Array) -> Array:
    """Return [N, M]: (x . y / D + 1)^3."""
    return (x_ND @ y_MD.T / x_ND.shape[1] + 1) ** 3


def gaussian_kernel(x_ND: Array, y_MD: Array, *, sigma: float) -> Array:
    """Return [N, M]: exp(-|x - y|^2 / (2 sigma^2))."""
    squared = np.square(x_ND).sum(1)[:, None] + np.square(y_MD).sum(1)[None] - 2 * x_ND @ y_MD.T
    return np.exp(-np.clip(squared, 0, None) / (2 * sigma**2))


def squared_mmd(xx_NN: Array, xy_NM: Array, yy_MM: Array) -> float:
    """Return the U-statistic of three kernel matrices."""
    return float(_mean_of_pairs(xx_NN) + _mean_of_pairs(yy_MM) - 2 * xy_NM.mean())


def squared_mmd_resamples(
    xx_NN: Array, xy_NM: Array, yy_MM: Array, prompt_N: NDArray[np.int64], counts_RN: NDArray
) -> Array:
    """Return [R]: the U-statistic under each resample of prompts; NaN where a resample holds one prompt alone.

    Copies of one prompt are never paired with each other: they are alike, where two different prompts would not be, and
    would push every resample upwards. Pairs within and between prompts keep the weight that they have in the sample, so
    the mean over the resamples is that of the sample. The real side is not resampled.
    """
    groups = np.equal.outer(np.arange(prompt_N.max() + 1), prompt_N).astype(np.float64)  # [P, N]
    first = groups.argmax(axis=1)
    drawn_RP = np.asarray(counts_RN, dtype=np.float64)[:, first]
    sizes = groups.sum(axis=1)
    sums_PP = groups @ xx_NN @ groups.T
    within_sums = np.diag(sums_PP) - groups @ np.diag(xx_NN)
    between_sums = sums_PP - np.diag(np.diag(sums_PP))
    between_pairs = np.outer(sizes, sizes) - np.diag(sizes**2)
    n = len(prompt_N)
    within_weight = float((sizes * (sizes - 1)).sum() / (n * (n - 1)))
    own = np.zeros(len(drawn_RP))
    if within_weight > 0:
        own += within_weight * _ratio(drawn_RP @ within_sums, drawn_RP @ (sizes * (sizes - 1)))
    if within_weight < 1:
        between = np.einsum("rp,pq,rq->r", drawn_RP, between_sums, drawn_RP)
        pairs = np.einsum("rp,pq,rq->r", drawn_RP, between_pairs, drawn_RP)
        own += (1 - within_weight) * _ratio(between, pairs)
    cross = _ratio(drawn_RP @ (groups @ xy_NM.mean(axis=1)), drawn_RP @ sizes)
    return own + _mean_of_pairs(yy_MM) - 2 * cross


def _ratio(sums_R: Array, counts_R: Array) -> Array:
    return np.divide(sums_R, counts_R, out=np.full(len(sums_R), np.nan), where=counts_R > 0)


def _mean_of_pairs(kernel_NN: Array) -> float:
    n = len(kernel_NN)
    return float((kernel_NN.sum() - np.trace(kernel_NN)) / (n * (n - 1)))


def _cubic_kernels(images: ImageSet, real: RealPhotos) -> tuple[Array, Array, Array]:
    x, y = _both(images, real, FEATURES, "KID")
    return cubic_kernel(x, x), cubic_kernel(x, y), cubic_kernel(y, y)


def _gaussian_kernels(images: ImageSet, real: RealPhotos) -> tuple[Array, Array, Array]:
    x, y = (_unit(side) for side in _both(images, real, CLIP_IMAGE, "CMMD"))
    return tuple(gaussian_kernel(a, b, sigma=CMMD_SIGMA) for a, b in ((x, x), (x, y), (y, y)))  # type: ignore[return-value]


def _both(images: ImageSet, real: RealPhotos, name: str, what: str) -> tuple[Array, Array]:
    require_images(images, LEAST_IMAGES, what)
    require_images(real.held_out, LEAST_IMAGES, f"the real side of {what}")
    return images.array(name).astype(np.float64), real.held_out.array(name).astype(np.float64)


def _unit(features_ND: Array) -> Array:
    return features_ND / np.linalg.norm(features_ND, axis=1, keepdims=True)
