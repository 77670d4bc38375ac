"""White background of catalogue photos, from pixels alone: the share of a border ring that is near white.

The ring and its bounds are facts of real catalogue photos: of 300 casual shoes the 1st percentile of the share is
0.996. It judges the border only; a grey halo around the product is not seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loupe.metrics.image_set import BACKGROUND_WHITE_SHARE, Array, ImageSet, RealPhotos

RING_SHARE = 0.06
"""Width of the border ring as a share of the shorter side."""
WHITE_FROM = 240
"""A pixel is white when min(R, G, B) is at least this."""
PASSES_FROM = 0.99
"""An image passes when at least this share of its ring is white, or as much as in 99 % of the train photos."""
STRAY_FROM = 0.05


def background_passes(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N]: 1 where the share of white in the border ring is inside the real photos' band, else 0.

    The band begins at 99 %, or at the train photos' 1st percentile, without strays, where theirs is less white.
    """
    return (images.array(BACKGROUND_WHITE_SHARE) >= _least_white(real)).astype(np.float64)


def background_finding(real: RealPhotos) -> str | None:
    """Return a sentence where the photos have widened the band, else None."""
    least = _least_white(real)
    if least >= PASSES_FROM:
        return None
    return (
        f"pictures pass for their background from {least:.1%} of white in the border on: the train photos have no more"
    )


def _least_white(real: RealPhotos) -> float:
    return min(PASSES_FROM, float(np.percentile(without_strays(real.train.array(BACKGROUND_WHITE_SHARE)), 1)))


def without_strays(values_N: Array) -> Array:
    """Return the values without those far from the median: over 5 robust standard deviations, and over 0.05.

    A band of the 1st or 99th percentile would else be one that four odd photos of 300 decide. The robust standard
    deviation is 1.4826 times the median distance to the median (Rousseeuw & Croux 1993), which is 0 where most photos
    are alike.
    """
    distances = np.abs(values_N - np.median(values_N))
    return values_N[distances <= max(STRAY_FROM, 5 * 1.4826 * float(np.median(distances)))]


def background_white_share(image_HWC: NDArray[np.uint8]) -> float:
    """Return the share of white pixels in the 6 % border ring of one RGB image (uint8 0..255)."""
    ring = border_ring(image_HWC.shape[:2])
    return float((image_HWC[ring].min(axis=1) >= WHITE_FROM).mean())


def border_ring(size_HW: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return [H, W]: True in the border ring."""
    height, width = size_HW
    ring_px = max(1, round(RING_SHARE * min(height, width)))
    ring = np.ones((height, width), dtype=bool)
    ring[ring_px : height - ring_px, ring_px : width - ring_px] = False
    return ring
