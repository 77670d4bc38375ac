"""Small image sets for tests of single metrics."""

from __future__ import annotations

import numpy as np

from loupe.metrics.image_set import FEATURES, ImageSet, RealPhotos


def image_set(n: int, *, seeds: int = 1, **arrays: np.ndarray) -> ImageSet:
    """n images, `seeds` of each prompt."""
    return ImageSet(cells=tuple((f"p{i // seeds}", i % seeds) for i in range(n)), arrays=arrays)


def with_features(features: np.ndarray, *, seeds: int = 1) -> ImageSet:
    return image_set(len(features), seeds=seeds, **{FEATURES: np.asarray(features, dtype=np.float64)})


def real_photos(held_out: ImageSet, train: ImageSet | None = None) -> RealPhotos:
    return RealPhotos(train=held_out if train is None else train, held_out=held_out)


NOTHING = real_photos(image_set(0))
"""For metrics that look at no photo."""
