"""Whether a picture has the colour that its prompt asks for: by its pixels, and by the demo classifier's stored logits.

The two see different things: the classifier names the product's colour as a person would, the pixels count shadows and
highlights too. Each has its ceiling in the real photos' own value.
"""

from __future__ import annotations

import numpy as np

from loupe.metrics.image_set import (
    ASKED_COLOUR,
    ASKED_FAMILY,
    COLOUR_LOGITS,
    COLOUR_SHARES,
    Array,
    ImageSet,
    RealPhotos,
)


def colour_matches(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N]: 1 where the classifier's likeliest colour is the asked one, 0 where not, NaN where none is asked."""
    del real
    asked = images.array(ASKED_COLOUR)
    seen = images.array(COLOUR_LOGITS).argmax(axis=1)
    return np.where(asked >= 0, (seen == asked).astype(np.float64), np.nan)


def colour_shares(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N]: the share of the product's pixels in the asked colour family; NaN where none is asked for."""
    del real
    asked = images.array(ASKED_FAMILY)
    shares = np.take_along_axis(images.array(COLOUR_SHARES), np.maximum(asked, 0)[:, None], axis=1)[:, 0]
    return np.where(asked >= 0, shares, np.nan)


def colour_in_top_two(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N]: 1 where the asked family is among the two largest of the product, else 0; NaN where none is asked."""
    asked_share = colour_shares(images, real)
    larger = (images.array(COLOUR_SHARES) > asked_share[:, None]).sum(axis=1)
    return np.where(np.isnan(asked_share), np.nan, ((larger < 2) & (asked_share > 0)).astype(np.float64))
