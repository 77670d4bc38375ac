"""All that is measured from a picture's pixels without a network, in one pass. What it means is said elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from loupe.metrics.background import background_white_share
from loupe.metrics.colour_families import family_shares
from loupe.metrics.images import Pixels
from loupe.metrics.silhouette import describe, eroded, laplacian_variance, product_mask


def measure_pixels(images: Sequence[Pixels]) -> Mapping[str, NDArray]:
    """Return arrays with a row per picture, named as the constants of image_set without their role."""
    rows = [_measure(image) for image in images]
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}


def _measure(image: Pixels) -> dict[str, float | NDArray]:
    mask = product_mask(image)
    inner = eroded(mask)
    shape = describe(mask)
    return {
        "background_white_share": background_white_share(image),
        "foreground_share": shape.foreground_share,
        "centre_offset": shape.centre_offset,
        "touches_border": float(shape.touches_border),
        "n_objects": float(shape.n_objects),
        "sharpness": laplacian_variance(image, inner),
        "colour_shares": family_shares(image[inner]),
    }
