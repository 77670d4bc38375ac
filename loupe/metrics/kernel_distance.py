"""Kernel distances between two clouds of features, unbiased: KID (cubic kernel) and CMMD (Gaussian kernel).

Squared maximum mean discrepancy as a U-statistic (Gretton et al. 2012): mean k(x, x') + mean k(y, y') - 2 mean k(x, y),
no image paired with itself. Its mean does not depend on the number of images, and it is slightly negative about as
often as positive when there is no difference; it is never clipped at 0. It extracts no features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from loupe.metrics.image_set import (
    CLIP_IMAGE,
    FEATURES,
    Array,
    ImageSet,
    RealPhotos,
    require_directions,
    require_images,
)
from loupe.metrics.row_parts import row_parts

LEAST_IMAGES = 2
"""A pair needs two."""
SCALE = 1000
"""Both are shown times 1000, as in their papers."""
Kernel = Callable[[Array, Array], Array]
"""[N, D], [M, D] -> [N, M]."""
CMMD_SIGMA = 10.0
"""Of the Gaussian kernel on unit vectors (Jayasumana et al. 2024, arXiv:2401.09603)."""


def kid_score(images: ImageSet, real: RealPhotos) -> float:
    """Return 1000 KID (Binkowski et al. 2018, arXiv:1801.01401) over all pairs; no random subsets.

    Raises TooFewImagesError when either side has fewer than two.
    """
    return SCALE * squared_mmd(*_both(images, real, FEATURES, "KID"), cubic_kernel)


def kid_resamples(images: ImageSet, real: RealPhotos, weights_RN: NDArray) -> Array:
    """Return 1000 KID under each resample of the prompts: image n weighs weights_RN[r, n]."""
    x, y = _both(images, real, FEATURES, "KID")
    return SCALE * squared_mmd_resamples(x, y, cubic_kernel, images.prompt_index(), weights_RN)


def kid_pairs(images: ImageSet, real: RealPhotos) -> Array:
    """Return [P, P]: what the pictures of two prompts together add to 1000 KID; 0 for those of one."""
    x, _ = _both(images, real, FEATURES, "KID")
    return SCALE * squared_mmd_pairs(x, cubic_kernel, images.prompt_index())


def cmmd_score(images: ImageSet, real: RealPhotos) -> float:
    """Return 1000 CMMD on the image-text model's picture features.

    The paper's own code takes the biased form, which is above 0 for equal distributions; this is the unbiased one.
    Raises TooFewImagesError when either side has fewer than two, NoDirectionError for a feature of zeros.
    """
    return SCALE * squared_mmd(*_unit_sides(images, real), cmmd_kernel)


def cmmd_resamples(images: ImageSet, real: RealPhotos, weights_RN: NDArray) -> Array:
    """Return 1000 CMMD under each resample of the prompts: image n weighs weights_RN[r, n]."""
    x, y = _unit_sides(images, real)
    return SCALE * squared_mmd_resamples(x, y, cmmd_kernel, images.prompt_index(), weights_RN)


def cmmd_pairs(images: ImageSet, real: RealPhotos) -> Array:
    """Return [P, P]: what the pictures of two prompts together add to 1000 CMMD; 0 for those of one."""
    x, _ = _unit_sides(images, real)
    return SCALE * squared_mmd_pairs(x, cmmd_kernel, images.prompt_index())


def cubic_kernel(x_ND: Array, y_MD: Array) -> Array:
    """Return [N, M]: (x . y / D + 1)^3."""
    return (x_ND @ y_MD.T / x_ND.shape[1] + 1) ** 3


def gaussian_kernel(x_ND: Array, y_MD: Array, *, sigma: float) -> Array:
    """Return [N, M]: exp(-|x - y|^2 / (2 sigma^2))."""
    squared = np.square(x_ND).sum(1)[:, None] + np.square(y_MD).sum(1)[None] - 2 * x_ND @ y_MD.T
    return np.exp(-np.clip(squared, 0, None) / (2 * sigma**2))


def cmmd_kernel(x_ND: Array, y_MD: Array) -> Array:
    """Return [N, M]: the Gaussian kernel of CMMD, for unit vectors."""
    return gaussian_kernel(x_ND, y_MD, sigma=CMMD_SIGMA)


def squared_mmd(x_ND: Array, y_MD: Array, kernel: Kernel) -> float:
    """Return the U-statistic of two clouds."""
    return float(_mean_of_pairs(x_ND, kernel) + _mean_of_pairs(y_MD, kernel) - 2 * _means(x_ND, y_MD, kernel).mean())


def squared_mmd_resamples(
    x_ND: Array, y_MD: Array, kernel: Kernel, prompt_N: NDArray[np.int64], weights_RN: NDArray
) -> Array:
    """Return [R]: the U-statistic under each resample of prompts; NaN where a resample holds one prompt alone.

    Copies of one prompt are never paired with each other: they are alike, where two different prompts would not be, and
    would push every resample upwards. Pairs within and between prompts keep the weight that they have in the sample.
    The real side is not resampled.
    """
    groups = np.equal.outer(np.arange(prompt_N.max() + 1), prompt_N).astype(np.float64)  # [P, N]
    first = groups.argmax(axis=1)
    weights_RP = np.asarray(weights_RN[:, first], dtype=np.float64)
    sizes = groups.sum(axis=1)
    sums_PP, own_sums = _sums_of_groups(x_ND, kernel, groups)
    within_sums = np.diag(sums_PP) - own_sums
    between_sums = sums_PP - np.diag(np.diag(sums_PP))
    between_pairs = np.outer(sizes, sizes) - np.diag(sizes**2)
    n = len(prompt_N)
    within_weight = float((sizes * (sizes - 1)).sum() / (n * (n - 1)))
    own = np.zeros(len(weights_RP))
    if within_weight > 0:
        own += within_weight * _ratio(weights_RP @ within_sums, weights_RP @ (sizes * (sizes - 1)))
    if within_weight < 1:
        between = np.einsum("rp,pq,rq->r", weights_RP, between_sums, weights_RP)
        pairs = np.einsum("rp,pq,rq->r", weights_RP, between_pairs, weights_RP)
        own += (1 - within_weight) * _ratio(between, pairs)
    cross = _ratio(weights_RP @ (groups @ _means(x_ND, y_MD, kernel)), weights_RP @ sizes)
    return own + _mean_of_pairs(y_MD, kernel) - 2 * cross


def squared_mmd_pairs(x_ND: Array, kernel: Kernel, prompt_N: NDArray[np.int64]) -> Array:
    """Return [P, P]: what the pictures of two prompts together add to the U-statistic; 0 for those of one."""
    groups = np.equal.outer(np.arange(prompt_N.max() + 1), prompt_N).astype(np.float64)
    sums_PP, _ = _sums_of_groups(x_ND, kernel, groups)
    return (sums_PP - np.diag(np.diag(sums_PP))) / (len(x_ND) * (len(x_ND) - 1))


def _ratio(sums_R: Array, counts_R: Array) -> Array:
    return np.divide(sums_R, counts_R, out=np.full(len(sums_R), np.nan), where=counts_R > 0)


def _sums_of_groups(x_ND: Array, kernel: Kernel, groups_PN: Array) -> tuple[Array, Array]:
    """Return [P, P] sums of the kernel between groups, and [P] sums of each row with itself."""
    sums_PP, own_sums = np.zeros((len(groups_PN), len(groups_PN))), np.zeros(len(groups_PN))
    for part in row_parts(len(x_ND)):
        block = kernel(x_ND[part], x_ND)
        sums_PP += groups_PN[:, part] @ block @ groups_PN.T
        own_sums += groups_PN[:, part] @ np.diagonal(block, offset=part.start)
    return sums_PP, own_sums


def _mean_of_pairs(x_ND: Array, kernel: Kernel) -> float:
    """Return the mean of the kernel over all pairs of different rows."""
    n, total = len(x_ND), 0.0
    for part in row_parts(n):
        block = kernel(x_ND[part], x_ND)
        total += float(block.sum() - np.trace(block, offset=part.start))
    return total / (n * (n - 1))


def _means(x_ND: Array, y_MD: Array, kernel: Kernel) -> Array:
    """Return [N]: the mean of the kernel from each x to all y."""
    return np.concatenate([kernel(x_ND[part], y_MD).mean(axis=1) for part in row_parts(len(x_ND))])


def _both(images: ImageSet, real: RealPhotos, name: str, what: str) -> tuple[Array, Array]:
    require_images(images, LEAST_IMAGES, what)
    require_images(real.held_out, LEAST_IMAGES, f"the real side of {what}")
    return images.array(name).astype(np.float64), real.held_out.array(name).astype(np.float64)


def _unit_sides(images: ImageSet, real: RealPhotos) -> tuple[Array, Array]:
    x, y = _both(images, real, CLIP_IMAGE, "CMMD")
    require_directions(images, CLIP_IMAGE)
    require_directions(real.held_out, CLIP_IMAGE)
    return _unit(x), _unit(y)


def _unit(features_ND: Array) -> Array:
    return features_ND / np.linalg.norm(features_ND, axis=1, keepdims=True)
