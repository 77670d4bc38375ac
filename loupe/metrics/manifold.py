"""Precision, recall, density and coverage from k-nearest-neighbour balls around features. It extracts none.

Kynkaanniemi et al. 2019 (arXiv:1904.06991) and Naeem et al. 2020 (arXiv:2002.09797), k = 5, strictly inside. Equal
distributions do not give 1, except density on average, so the null belongs beside each value. A real photo that occurs
more than k times has a ball of radius 0 and can never be covered.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from loupe.metrics.array_cache import once_per_arrays
from loupe.metrics.image_set import FEATURES, Array, ImageSet, RealPhotos, require_images

NEIGHBOURS = 5


def precision_of_images(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N]: 1 where an image lies inside the ball of some real photo, else 0; the mean is the precision."""
    return _inside_real_balls(images, real).any(axis=1).astype(np.float64)


def density_of_images(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N]: in how many balls of real photos an image lies, divided by k; the mean is the density."""
    return _inside_real_balls(images, real).sum(axis=1) / NEIGHBOURS


def recall_score(images: ImageSet, real: RealPhotos) -> float:
    """Return the share of the real photos that lie inside the ball of some image."""
    return float(recall_resamples(images, real, np.ones((1, len(images))))[0])


def recall_resamples(images: ImageSet, real: RealPhotos, counts_RN: NDArray) -> Array:
    """Return the recall under each resample, of the distinct images that it holds: copies would have balls of radius 0.

    So only differences under the same counts mean something; NaN where a resample has k images or fewer.
    """
    require_images(images, NEIGHBOURS + 1, "recall")
    require_images(real.held_out, 1, "the real side of recall")
    features = images.array(FEATURES)
    to_real = _distances(features, real.held_out.array(FEATURES))
    nearest, order = _others_by_distance(features)
    recalls = np.full(len(counts_RN), np.nan)
    for r, counts in enumerate(np.asarray(counts_RN) > 0):
        drawn = np.flatnonzero(counts)
        if len(drawn) <= NEIGHBOURS:
            continue
        kth = (counts[order[drawn]].cumsum(axis=1) >= NEIGHBOURS).argmax(axis=1)
        radii = nearest[drawn, kth]
        recalls[r] = (to_real[drawn] < radii[:, None]).any(axis=0).mean()
    return recalls


def coverage_score(images: ImageSet, real: RealPhotos) -> float:
    """Return the share of the real photos whose ball holds some image."""
    return float(coverage_resamples(images, real, np.ones((1, len(images))))[0])


def coverage_resamples(images: ImageSet, real: RealPhotos, counts_RN: NDArray) -> Array:
    """Return the coverage under each resample; fewer distinct images cover less, so use differences only."""
    require_images(images, 1, "coverage")
    inside = _inside_real_balls(images, real).astype(np.float64)
    return ((np.asarray(counts_RN, dtype=np.float64) @ inside) > 0).mean(axis=1)


def _inside_real_balls(images: ImageSet, real: RealPhotos) -> NDArray[np.bool_]:
    require_images(real.held_out, NEIGHBOURS + 1, "the real side of precision, density and coverage")
    photos = real.held_out.array(FEATURES)
    return _distances(images.array(FEATURES), photos) < _radii(photos)


@once_per_arrays(keep=4)
def _radii(features_ND: NDArray) -> Array:
    own = cdist(features_ND.astype(np.float64), features_ND.astype(np.float64))
    np.fill_diagonal(own, -1.0)
    return np.partition(own, NEIGHBOURS, axis=1)[:, NEIGHBOURS]


@once_per_arrays(keep=1)
def _others_by_distance(features_ND: NDArray) -> tuple[Array, NDArray[np.int64]]:
    """Return [N, N - 1] distances from each row to all others, ascending, and the others' row numbers."""
    own = cdist(features_ND.astype(np.float64), features_ND.astype(np.float64))
    np.fill_diagonal(own, -1.0)
    order = own.argsort(axis=1)[:, 1:]  # an image is not its own neighbour, whatever copies it has
    return np.take_along_axis(own, order, axis=1), order


@once_per_arrays(keep=2)
def _distances(x_ND: NDArray, y_MD: NDArray) -> Array:
    return cdist(x_ND.astype(np.float64), y_MD.astype(np.float64))
