"""The aesthetic score of stored ratings. It runs no network; what the rating means is the rater's business."""

from __future__ import annotations

import numpy as np

from loupe.metrics.image_set import RATING, Array, ImageSet, RealPhotos


def aesthetic_scores(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N]: the probability in [0, 1] that the rater gives each image."""
    del real
    return np.asarray(images.array(RATING), dtype=np.float64)
