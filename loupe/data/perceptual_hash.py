"""A 64-bit perceptual hash of a product on white, and the search for pairs that nearly agree.

It compares outlines and shading, not colour: the pairs it finds are for a person to look at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

_SIDE = 32
_WHITE = 245
_KEPT = 8


def perceptual_hash(image: Image.Image) -> int | None:
    """Return the DCT hash of the foreground of an RGB picture, 0 <= hash < 2**64; None for a blank picture.

    The bounding box of everything darker than white is cut out first, since the white around a product would make all
    products alike, and shrunk to 32 x 32 px; the signs of 64 low-frequency cosine coefficients against their median
    are the bits (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", pHash).
    """
    grey = image.convert("L")
    box = grey.point(lambda value: 255 if value < _WHITE else 0).getbbox()
    if box is None:
        return None
    small = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, box=box), dtype=np.float64)
    basis = _cosine_basis()
    low = (basis @ small @ basis.T).ravel()
    bits = low > np.median(low)
    return int(np.packbits(bits).view(">u8")[0])


def near_pairs(hashes: Sequence[int | None], *, max_bits: int) -> list[tuple[int, int, int]]:
    """Return (i, j, differing bits) for all i < j whose hashes differ in at most `max_bits`, in that order."""
    places = [place for place, value in enumerate(hashes) if value is not None]
    values = np.array([hashes[place] for place in places], dtype=np.uint64)
    pairs = []
    for row, value in enumerate(values):
        distances = np.bitwise_count(values[row + 1 :] ^ value)
        for column in np.flatnonzero(distances <= max_bits):
            pairs.append((places[row], places[row + 1 + int(column)], int(distances[column])))
    return pairs


def _cosine_basis() -> np.ndarray:
    """Rows 1 to 8 of the DCT-II of length 32: the constant row says brightness only and is left out."""
    frequency = np.arange(1, _KEPT + 1)[:, None]
    return np.cos(np.pi * frequency * (2 * np.arange(_SIDE) + 1) / (2 * _SIDE))
