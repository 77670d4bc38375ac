"""Text-image scores of stored CLIP features: 100 times the cosine, per image, with its own and with other prompts.

It runs no network. No clamp, no weight and no prompt prefix (Hessel et al. 2021, arXiv:2104.08718, take 2.5 max(cos, 0)
and 'A photo depicts'): opposite vectors give -100, so a score of checkpoints is the plain mean of its column in
per_image.csv.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loupe.metrics.image_set import CLIP_IMAGE, CLIP_TEXT, Array, ImageSet, RealPhotos, require_directions


def clip_scores(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N] scores in [-100, 100] of each image with its own prompt; NoDirectionError for a feature of zeros."""
    del real
    for name in (CLIP_IMAGE, CLIP_TEXT):
        require_directions(images, name)
    return cosine_points(images.array(CLIP_IMAGE), images.array(CLIP_TEXT))


def clip_gaps(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N]: the score with the own prompt minus the mean over the set's other prompts; NaN where all are one.

    The mean over every other prompt is what shuffled prompts score on average, without a shuffle's chance. A picture
    that suits every prompt alike has a gap of 0, however high its score. It depends on which prompts the set has: gaps
    of other prompts, and of real photos, compare only where captions are chosen alike (loupe/metrics/nulls.py).
    """
    matched = clip_scores(images, real)
    if not len(images):
        return matched
    texts, own = np.unique(_unit(images.array(CLIP_TEXT)), axis=0, return_inverse=True)
    if len(texts) < 2:
        return np.full(len(images), np.nan)
    points = 100 * _unit(images.array(CLIP_IMAGE)) @ texts.T
    others = points.sum(axis=1) - points[np.arange(len(images)), own.ravel()]
    return matched - others / (len(texts) - 1)


def cosine_points(image_ND: NDArray, text_ND: NDArray) -> Array:
    """Return 100 cos between the rows of two arrays, in float64; the length of a row does not matter.

    Raises ValueError for a row of zeros, which has no direction.
    """
    return 100 * np.einsum("nd,nd->n", _unit(image_ND), _unit(text_ND))


def _unit(features_ND: NDArray) -> Array:
    features = np.asarray(features_ND, dtype=np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError("a CLIP feature of length 0 has no cosine")
    return features / lengths
