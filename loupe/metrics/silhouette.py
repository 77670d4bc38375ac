"""The product of a catalogue picture as a mask against its white background, and what the mask tells.

Where the background is not white there is no mask to find: all of the picture counts as product, reaches the border and
so passes neither for centred nor for a single object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from loupe.metrics.background import STRAY_FROM, border_ring, without_strays
from loupe.metrics.image_set import (
    CENTRE_OFFSET,
    FOREGROUND_SHARE,
    N_OBJECTS,
    SHARPNESS,
    TOUCHES_BORDER,
    Array,
    ImageSet,
    RealPhotos,
)

WHITE_AT_MOST, WHITE_AT_LEAST = 250, 230
"""Background is white from min(R, G, B) 250 on, as in catalogue photos: a white shoe keeps its body. Where the border
itself is darker, down to 230, its darkest twentieth is the bound."""
LEAST_OBJECT = 0.01
"""A component is an object from this share of the picture on."""
WIDEST_OFFSET = 0.125
"""A product is centred up to this offset (the 99th percentile of 300 real shoe photos is 0.124), or up to that of the
train photos where they are less centred."""
NO_PRODUCT = 1.0
"""The offset of a picture that shows none; that of a product is at most half a diagonal, 0.71."""
NO_BACKGROUND = 0.95
"""Where this share of a picture counts as product, no white background was found. Garments fill up to half."""
ERODED_SHARE = 1 / 112
"""Of the side: pixels this near to the outline mix with the background."""
EVERY_NEIGHBOUR = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, slots=True)
class Silhouette:
    """What the mask of one picture tells."""

    foreground_share: float
    centre_offset: float
    """Distance of the bounding box's centre from the picture's, as a share of the longer side; 1 without a product."""
    touches_border: bool
    n_objects: int
    """Connected parts."""


def centred(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N]: 1 where the product's offset is inside the real photos' band and it keeps off the border, else 0.

    The band is taken from photos that show a product, without strays. Where products of more than 5 % of them reach the
    border, as a garment's do, a picture's may; but it must leave as much of the picture free as theirs, which one
    without a white background does not.
    """
    inside = images.array(CENTRE_OFFSET) <= _widest(real)
    free = images.array(TOUCHES_BORDER) == 0
    if (fullest := _fullest(real)) is not None:
        free |= images.array(FOREGROUND_SHARE) <= fullest
    return (inside & free).astype(np.float64)


def centring_findings(real: RealPhotos) -> Iterator[str]:
    """Yield a sentence for each way in which the photos have moved the band."""
    if not _shows_product(real).any():
        yield "no train photo shows a product on a white background: what is centred goes by shoes of a catalogue"
    widest = _widest(real)
    if widest > WIDEST_OFFSET:
        yield f"pictures pass as centred up to {widest:.1%} of the side off the middle: the train photos lie as far off"
    if (fullest := _fullest(real)) is not None:
        yield (
            f"pictures pass as centred though the product reaches the border, where it fills at most {fullest:.0%} of "
            f"the picture: that of {_touching(real).mean():.0%} of the train photos reaches it"
        )


def _widest(real: RealPhotos) -> float:
    offsets = real.train.array(CENTRE_OFFSET)[_shows_product(real)]
    return max(WIDEST_OFFSET, float(np.percentile(without_strays(offsets), 99))) if len(offsets) else WIDEST_OFFSET


def _fullest(real: RealPhotos) -> float | None:
    """Return the share of a picture that a product at its border may fill; None where it may not reach the border."""
    touching = _touching(real)
    if not len(touching) or touching.mean() <= STRAY_FROM:
        return None
    fills = real.train.array(FOREGROUND_SHARE)[_shows_product(real)][touching]
    return float(np.percentile(without_strays(fills), 99))


def _touching(real: RealPhotos) -> NDArray[np.bool_]:
    """Return for each photo that shows a product whether it reaches the border."""
    return real.train.array(TOUCHES_BORDER)[_shows_product(real)] > 0


def _shows_product(real: RealPhotos) -> NDArray[np.bool_]:
    """Return for each train photo whether it shows a product on white: neither nothing nor nearly all is product."""
    share = real.train.array(FOREGROUND_SHARE)
    return (share > 0) & (share < NO_BACKGROUND)


def single_objects(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N]: 1 where the picture shows one connected thing that keeps off the border, else 0."""
    del real
    return ((images.array(N_OBJECTS) == 1) & (images.array(TOUCHES_BORDER) == 0)).astype(np.float64)


def sharpness_percentiles(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N]: the share of the train photos that are blurrier (ties count half); NaN without a product.

    Half is what real photos have on average; near 0 is blur, near 1 noise or ringing.
    """
    train = np.sort(real.train.array(SHARPNESS)[real.train.array(FOREGROUND_SHARE) > 0])
    values = images.array(SHARPNESS)
    if not len(train):
        return np.full(len(images), np.nan)
    below = np.searchsorted(train, values, side="left") + np.searchsorted(train, values, side="right")
    return np.where(images.array(FOREGROUND_SHARE) > 0, below / (2 * len(train)), np.nan)


def product_mask(image_HWC: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return [H, W]: what no near-white path joins to the border, opened with 3 x 3, without specks up to 1 %.

    White inside the product belongs to it.
    """
    darkest = image_HWC.min(axis=2)
    ring = darkest[border_ring(darkest.shape)]
    white = darkest >= np.clip(np.percentile(ring, 5), WHITE_AT_LEAST, WHITE_AT_MOST)
    labels, _ = ndimage.label(white)
    at_border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    product = ~np.isin(labels, at_border[at_border > 0])
    parts, _ = ndimage.label(ndimage.binary_opening(product, structure=EVERY_NEIGHBOUR), structure=EVERY_NEIGHBOUR)
    large = np.bincount(parts.ravel()) > LEAST_OBJECT * parts.size
    large[0] = False
    return large[parts]


def eroded(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask without its outline; the mask itself where nothing would be left."""
    steps = max(1, round(ERODED_SHARE * max(mask_HW.shape)))
    inner = ndimage.binary_erosion(mask_HW, structure=EVERY_NEIGHBOUR, iterations=steps)
    return inner if inner.any() else mask_HW


def describe(mask_HW: NDArray[np.bool_]) -> Silhouette:
    """Return size, place and number of what a product mask shows."""
    if not mask_HW.any():
        return Silhouette(foreground_share=0.0, centre_offset=NO_PRODUCT, touches_border=False, n_objects=0)
    _, n_objects = ndimage.label(mask_HW, structure=EVERY_NEIGHBOUR)
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    height, width = mask_HW.shape
    offset = np.hypot((rows[0] + rows[-1] + 1 - height) / 2, (columns[0] + columns[-1] + 1 - width) / 2)
    edges = np.concatenate([mask_HW[0], mask_HW[-1], mask_HW[:, 0], mask_HW[:, -1]])
    return Silhouette(
        foreground_share=float(mask_HW.mean()),
        centre_offset=float(offset / max(height, width)),
        touches_border=bool(edges.any()),
        n_objects=n_objects,
    )


def laplacian_variance(image_HWC: NDArray[np.uint8], inner_HW: NDArray[np.bool_]) -> float:
    """Return the variance of the luminance's Laplacian inside the eroded mask (grey levels squared); 0 for no pixel.

    It depends on the picture's size: all pictures and photos of a run are equally large.
    """
    if not inner_HW.any():
        return 0.0
    luminance = image_HWC.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return float(ndimage.laplace(luminance)[inner_HW].var())
