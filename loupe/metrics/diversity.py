"""How different pictures are from each other: within a prompt, and over the whole set. It compares with no photo pixel.

Both look at features after the train photos' mean is taken away: raw features of one kind of product are all alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from loupe.metrics.array_cache import once_per_arrays
from loupe.metrics.image_set import ASKED_FAMILY, FEATURES, Array, ImageSet, RealPhotos, require_images
from loupe.metrics.row_parts import row_parts

LEAST_PHOTOS = 5
"""Train photos of a colour family that the spread of a prompt may be compared with."""
KEPT_VARIANCE = 0.95
KEPT = 4
"""Sets of train features whose mean, whitening and spreads are kept."""
MOST_COMPONENTS = 64
"""Directions kept when features are whitened: the leading ones of the train photos. More are mostly their noise."""


def diversity_of_images(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N]: mean (1 - cosine) of an image to the others of its prompt, divided by that of real train photos.

    1 is as diverse as the train photos of the colour family that the prompt asks for, 0 the same picture for every
    seed. NaN for a prompt with one image, without a colour, or whose colour fewer than five train photos have.
    """
    spreads = _spread_of_families(real.train.array(FEATURES), real.train.array(ASKED_FAMILY))
    features, mean = images.array(FEATURES), _mean(real.train.array(FEATURES))
    values = np.full(len(images), np.nan)
    prompts = images.prompt_index()
    for prompt in np.unique(prompts):
        rows = np.flatnonzero(prompts == prompt)
        spread = spreads.get(int(images.array(ASKED_FAMILY)[rows[0]]), 0.0)
        if len(rows) > 1 and spread > 0:
            unit = _unit(features[rows] - mean)
            cosines = unit @ unit.T
            others = cosines.sum(axis=1) - np.diag(cosines)
            values[rows] = (1 - others / (len(rows) - 1)) / spread
    return values


def vendi_score(images: ImageSet, real: RealPhotos) -> float:
    """Return the Vendi score (Friedman & Dieng 2022, arXiv:2210.02410): the effective number of different images.

    exp of the entropy of the eigenvalues of K / N, K the cosines of features whitened by the train photos; 1 for one
    image repeated. It grows with N. Raises TooFewImagesError without images or with fewer than three train photos.
    """
    return float(vendi_resamples(images, real, np.ones((1, len(images))))[0])


def vendi_resamples(images: ImageSet, real: RealPhotos, weights_RN: NDArray) -> Array:
    """Return the score under each resample; copies add nothing new."""
    require_images(images, 1, "a Vendi score")
    require_images(real.train, 3, "the whitening of a Vendi score")
    return vendi_of_rows(_whitened(images, real), weights_RN)


def vendi_of_rows(unit_NK: Array, weights_RN: NDArray) -> Array:
    """Return [R] scores of unit rows, where row n weighs weights_RN[r, n]; NaN where a resample is empty."""
    weights = np.asarray(weights_RN, dtype=np.float64)
    scores = np.full(len(weights), np.nan)
    for r in np.flatnonzero(weights.sum(axis=1) > 0):
        drawn = np.flatnonzero(weights[r])
        rows = unit_NK[drawn] * np.sqrt(weights[r, drawn] / weights[r].sum())[:, None]
        gram = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
        values = np.clip(np.linalg.eigvalsh(gram), 0, None)
        positive = values[values > 0]
        scores[r] = np.exp(-(positive * np.log(positive)).sum())
    return scores


def _whitened(images: ImageSet, real: RealPhotos) -> Array:
    features, train = images.array(FEATURES), real.train.array(FEATURES)
    mean, whitening = _mean(train), _whitening(train)
    return _unit(np.concatenate([(features[part] - mean) @ whitening for part in row_parts(len(features))]))


@once_per_arrays(keep=KEPT)
def _whitening(train_MD: NDArray) -> Array:
    """Return [D, K]: centred features times this have K uncorrelated components of equal variance over the photos."""
    centred = train_MD - _mean(train_MD)
    many = len(centred) >= centred.shape[1]
    gram = centred.T @ centred if many else centred @ centred.T
    most, total = min(MOST_COMPONENTS, len(centred) - 1, len(gram)), np.trace(gram)
    # Only the leading ones: a full decomposition of 2,000 photos at 2,048 features costs five times as much.
    leading = [len(gram) - most, len(gram) - 1]
    variances, vectors = eigh(gram.T, subset_by_index=leading, overwrite_a=True)  # transposed: LAPACK needs no copy
    variances, vectors = variances[::-1], vectors[:, ::-1]
    shares = np.cumsum(variances) / total
    kept = min(int(np.searchsorted(shares, KEPT_VARIANCE)) + 1, most)
    directions = vectors[:, :kept] if many else centred.T @ vectors[:, :kept] / np.sqrt(variances[:kept])
    return directions / np.sqrt(variances[:kept])


@once_per_arrays(keep=KEPT)
def _mean(features_MD: NDArray) -> Array:
    return features_MD.mean(axis=0, dtype=np.float64)


@once_per_arrays(keep=KEPT)
def _spread_of_families(features_MD: NDArray, families_M: NDArray[np.int64]) -> dict[int, float]:
    """Return family -> mean (1 - cosine) of its photos, for families of at least LEAST_PHOTOS."""
    unit = _unit(features_MD - _mean(features_MD))
    return {
        int(family): _mean_difference(unit[families_M == family])
        for family in np.unique(families_M[families_M >= 0])
        if (families_M == family).sum() >= LEAST_PHOTOS
    }


def _mean_difference(unit_ND: Array) -> float:
    n = len(unit_ND)
    cosines = unit_ND @ unit_ND.T
    return float(1 - (cosines.sum() - np.trace(cosines)) / (n * (n - 1)))


def _unit(rows_ND: Array) -> Array:
    """Return rows of length 1; a row of zeros, which has no direction, stays as it is and so is like no other."""
    lengths = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return np.divide(rows_ND, lengths, out=np.zeros_like(rows_ND), where=lengths > 0)
