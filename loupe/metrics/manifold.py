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
from loupe.metrics.row_parts import row_parts

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


def recall_resamples(images: ImageSet, real: RealPhotos, weights_RN: NDArray) -> Array:
    """Return the recall under each resample, of the distinct images that it holds: copies would have balls of radius 0.

    NaN where a resample has k images or fewer.
    """
    require_images(images, NEIGHBOURS + 1, "recall")
    require_images(real.held_out, 1, "the real side of recall")
    to_real = _distances(images.array(FEATURES), real.held_out.array(FEATURES))
    drawn_RN = np.asarray(weights_RN) > 0
    radii_RN = _radii_of_drawn(images.array(FEATURES), drawn_RN)
    recalls = np.full(len(drawn_RN), np.nan)
    for r, is_drawn in enumerate(drawn_RN):
        drawn = np.flatnonzero(is_drawn)
        if len(drawn) > NEIGHBOURS:
            recalls[r] = (to_real[drawn] < radii_RN[r, drawn, None]).any(axis=0).mean()
    return recalls


def coverage_score(images: ImageSet, real: RealPhotos) -> float:
    """Return the share of the real photos whose ball holds some image."""
    return float(coverage_resamples(images, real, np.ones((1, len(images))))[0])


def coverage_resamples(images: ImageSet, real: RealPhotos, weights_RN: NDArray) -> Array:
    """Return the coverage under each resample; fewer distinct images cover less."""
    require_images(images, 1, "coverage")
    inside = _inside_real_balls(images, real).astype(np.float64)
    return ((np.asarray(weights_RN, dtype=np.float64) @ inside) > 0).mean(axis=1)


def _inside_real_balls(images: ImageSet, real: RealPhotos) -> NDArray[np.bool_]:
    require_images(real.held_out, NEIGHBOURS + 1, "the real side of precision, density and coverage")
    photos = real.held_out.array(FEATURES)
    return _distances(images.array(FEATURES), photos) < _radii(photos)


@once_per_arrays(keep=4)
def _radii(features_ND: NDArray) -> Array:
    own = cdist(features_ND.astype(np.float64), features_ND.astype(np.float64))
    np.fill_diagonal(own, -1.0)
    return np.partition(own, NEIGHBOURS, axis=1)[:, NEIGHBOURS]


def _radii_of_drawn(features_ND: NDArray, drawn_RN: NDArray[np.bool_]) -> Array:
    """Return [R, N] distances from each drawn image to the k-th nearest drawn one; of no meaning elsewhere."""
    features, radii_RN = features_ND.astype(np.float64), np.zeros(drawn_RN.shape)
    for part in row_parts(len(features)):
        own = cdist(features[part], features)
        own[np.arange(len(own)), np.arange(part.start, part.stop)] = -1.0
        order = own.argsort(axis=1)[:, 1:]  # an image is not its own neighbour, whatever copies it has
        nearest = np.take_along_axis(own, order, axis=1)
        for r, is_drawn in enumerate(drawn_RN):
            rows = np.flatnonzero(is_drawn[part])
            kth = (is_drawn[order[rows]].cumsum(axis=1, dtype=np.int32) >= NEIGHBOURS).argmax(axis=1)
            radii_RN[r, part.start + rows] = nearest[rows, kth]
    return radii_RN


@once_per_arrays(keep=2)
def _distances(x_ND: NDArray, y_MD: NDArray) -> Array:
    y = y_MD.astype(np.float64)
    distances = np.empty((len(x_ND), len(y)))
    for part in row_parts(len(x_ND)):
        distances[part] = cdist(x_ND[part].astype(np.float64), y)
    return distances
