"""How near pictures lie to single training photos, judged by how near unseen real photos lie to them.

A picture is flagged when it is nearer to some training photo than all but the nearest 5 % of the held-out photos are.
It looks at one feature space; no such measure finds every copy, so the nearest photo is named for the eye to judge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom

from loupe.evaluation_records import Null
from loupe.metrics.array_cache import once_per_arrays
from loupe.metrics.image_set import FEATURES, Array, ImageSet, RealPhotos, require_images
from loupe.metrics.row_parts import row_parts

HELD_OUT_SHARE = 0.05
"""Of the held-out photos lie nearer to a training photo than the threshold."""
NEAR_DUPLICATE = 0.25
"""Of the median distance of the held-out photos: nearer ones are the same product, photographed or cut anew."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """The nearest training photo of each image."""

    row_N: NDArray[np.int64]
    """Row of RealPhotos.train."""
    distance_N: Array
    """Euclidean, in the features of the inception role."""


def nearest_train(images: ImageSet, train: ImageSet) -> Nearest:
    """Return the nearest training photo of each image; a copy has distance 0 exactly.

    Raises TooFewImagesError when there is no training photo.
    """
    require_images(train, 1, "the search for memorised photos")
    return _nearest(images.array(FEATURES), train.array(FEATURES))


def memorised_images(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N]: 1 where an image is nearer to a training photo than the threshold, else 0."""
    return (nearest_train(images, real.train).distance_N < copy_threshold(real)).astype(np.float64)


def copy_threshold(real: RealPhotos) -> float:
    """Return the distance below which an image is flagged: that of the k-th nearest held-out photo.

    k is 5 % of their number plus one, rounded down, at least 1. Held-out photos that are nearly a training photo
    themselves do not count (`near_duplicates`): two of them among 55 would let every copy pass. The null and the bound
    go by all held-out photos, so with some left out chance flags slightly more than they say. Raises TooFewImagesError
    when a side is empty.
    """
    require_images(real.held_out, 1, "the threshold for memorised photos")
    require_images(real.train, 1, "the search for memorised photos")
    return _threshold(real.held_out.array(FEATURES), real.train.array(FEATURES))


def near_duplicates(real: RealPhotos) -> int:
    """Return how many held-out photos are nearly training photos: nearer than a quarter of the median distance."""
    distances = nearest_train(real.held_out, real.train).distance_N
    return len(distances) - len(_apart(distances))


def memorisation_null(real: RealPhotos, n_images: int) -> Null:
    """Return the flagged share among `n_images` unseen pictures as unlike the training photos as the held-out ones.

    The number below the k-th of m held-out distances is beta-binomial(n, k, m + 1 - k), whatever the distances'
    distribution; for many held-out photos that is the binomial with p = 5 %. Raises TooFewImagesError without any.
    """
    require_images(real.held_out, 1, "the threshold for memorised photos")
    m = len(real.held_out)
    lo, hi = (memorised_bound(n_images, m, upper_tail=tail) for tail in (0.975, 0.025))
    return Null(mean=_rank(m) / (m + 1), lo=lo, hi=hi, n_a=n_images, n_b=m, n_draws=0)


def memorised_bound(n_images: int, n_held_out: int, *, upper_tail: float) -> float:
    """Return the share of flagged pictures that chance exceeds with at most the probability `upper_tail`.

    Pictures are taken as independent. Those of one prompt are alike, so chance exceeds it somewhat more often: the
    gate errs on the side of looking closer.
    """
    k = _rank(n_held_out)
    return float(betabinom.ppf(1 - upper_tail, n_images, k, n_held_out + 1 - k)) / n_images


def _rank(n_held_out: int) -> int:
    return max(1, int(HELD_OUT_SHARE * (n_held_out + 1)))


@once_per_arrays(keep=4)
def _threshold(held_out_MD: NDArray, train_MD: NDArray) -> float:
    distances = _apart(_nearest(held_out_MD, train_MD).distance_N)
    return float(np.sort(distances)[_rank(len(distances)) - 1])


def _apart(distances_M: Array) -> Array:
    return distances_M[distances_M >= NEAR_DUPLICATE * np.median(distances_M)]


@once_per_arrays(keep=2)
def _nearest(features_ND: NDArray, train_MD: NDArray) -> Nearest:
    y = train_MD.astype(np.float64)
    squared_M = np.einsum("md,md->m", y, y)
    row, distance = np.empty(len(features_ND), dtype=np.int64), np.empty(len(features_ND))
    for part in row_parts(len(features_ND)):
        x = features_ND[part].astype(np.float64)
        row[part] = (squared_M - 2 * (x @ y.T)).argmin(axis=1)
        distance[part] = np.linalg.norm(x - y[row[part]], axis=1)
    return Nearest(row_N=row, distance_N=distance)
