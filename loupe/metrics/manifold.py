"""Precision, recall, density and coverage from k-nearest-neighbour balls around features. It extracts none.

Kynkaanniemi et al. 2019 (arXiv:1904.06991) and Naeem et al. 2020 (arXiv:2002.09797), k = 5, strictly inside. Equal
distributions do not give 1, except density on average, so the null belongs beside each value. A real photo that occurs
more than k times has a ball of radius 0 and can never be covered.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

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
    x, y = _both(images, real, "recall")
    own, to_real = cdist(x, x), cdist(x, y)
    np.fill_diagonal(own, -1.0)
    order = own.argsort(axis=1)[:, 1:]  # an image is not its own neighbour, whatever copies it has
    nearest = np.take_along_axis(own, order, axis=1)
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
    x, y = images.array(FEATURES).astype(np.float64), real.held_out.array(FEATURES).astype(np.float64)
    own = cdist(y, y)
    np.fill_diagonal(own, -1.0)
    radii = np.partition(own, NEIGHBOURS, axis=1)[:, NEIGHBOURS]
    return cdist(x, y) < radii


def _both(images: ImageSet, real: RealPhotos, what: str) -> tuple[Array, Array]:
    require_images(images, NEIGHBOURS + 1, what)
    require_images(real.held_out, 1, f"the real side of {what}")
    return images.array(FEATURES).astype(np.float64), real.held_out.array(FEATURES).astype(np.float64)
