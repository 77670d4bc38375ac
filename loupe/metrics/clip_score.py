"""Text-image score of stored CLIP features: 100 times the cosine, per image. It runs no network.

No clamp, no weight and no prompt prefix (Hessel et al. 2021, arXiv:2104.08718, take 2.5 max(cos, 0) and 'A photo
depicts'): opposite vectors give -100, so a score of checkpoints is the plain mean of its column in per_image.csv.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loupe.metrics.image_set import CLIP_IMAGE, CLIP_TEXT, Array, ImageSet


def clip_scores(images: ImageSet) -> Array:
    """Return [N] scores in [-100, 100] of each image with its own prompt."""
    return cosine_points(images.array(CLIP_IMAGE), images.array(CLIP_TEXT))


def cosine_points(image_ND: NDArray, text_ND: NDArray) -> Array:
    """Return 100 cos between the rows of two arrays, in float64; the length of a row does not matter.

    Raises ValueError for a row of zeros, which has no direction.
    """
    image, text = np.asarray(image_ND, dtype=np.float64), np.asarray(text_ND, dtype=np.float64)
    norms = np.linalg.norm(image, axis=1) * np.linalg.norm(text, axis=1)
    if not norms.all():
        raise ValueError("a CLIP feature of length 0 has no cosine")
    return 100 * np.einsum("nd,nd->n", image, text) / norms
