"""White background of catalogue photos, from pixels alone: the share of a border ring that is near white.

The ring and its bounds are facts of real catalogue photos: of 300 casual shoes the 1st percentile of the share is
0.996. It judges the border only; a grey halo around the product is not seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loupe.metrics.image_set import BACKGROUND_WHITE_SHARE, Array, ImageSet

RING_SHARE = 0.06
"""Width of the border ring as a share of the shorter side."""
WHITE_FROM = 240
"""A pixel is white when min(R, G, B) is at least this."""
PASSES_FROM = 0.99
"""An image passes when at least this share of its ring is white."""


def background_passes(images: ImageSet) -> Array:
    """Return [N]: 1 where at least 99 % of the border ring is white, else 0."""
    return (images.array(BACKGROUND_WHITE_SHARE) >= PASSES_FROM).astype(np.float64)


def background_white_share(image_HWC: NDArray[np.uint8]) -> float:
    """Return the share of white pixels in the 6 % border ring of one RGB image (uint8 0..255)."""
    height, width = image_HWC.shape[:2]
    ring_px = max(1, round(RING_SHARE * min(height, width)))
    ring = np.ones((height, width), dtype=bool)
    ring[ring_px : height - ring_px, ring_px : width - ring_px] = False
    return float((image_HWC[ring].min(axis=1) >= WHITE_FROM).mean())
