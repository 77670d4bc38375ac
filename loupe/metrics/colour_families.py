"""Colour names of product catalogues as families, and the family of every pixel by its distance in CIELAB.

The measurement needs no network: sRGB to CIELAB (D65), CIEDE2000 (Sharma et al. 2005) to a few typical colours per
family. Highlights and shadows of a product fall into other families, so real photos do not reach 1 either.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from loupe.metrics.image_set import Array

TYPICAL: dict[str, tuple[tuple[int, int, int], ...]] = {
    "Black": ((15, 15, 16), (40, 40, 43)),
    "White": ((252, 252, 252), (232, 232, 230), (214, 214, 212)),
    "Grey": ((100, 101, 104), (145, 146, 149), (188, 189, 191)),
    "Brown": ((122, 74, 38), (84, 52, 30), (150, 98, 60)),
    "Beige": ((214, 192, 160), (236, 222, 196), (190, 166, 132)),
    "Red": ((205, 28, 36), (150, 20, 28), (110, 18, 32)),
    "Orange": ((242, 122, 22), (210, 96, 24)),
    "Yellow": ((246, 212, 36), (206, 168, 30), (250, 234, 120)),
    "Green": ((36, 146, 62), (20, 90, 40), (110, 180, 70), (96, 104, 44), (0, 140, 130)),
    "Blue": ((38, 120, 226), (28, 84, 170), (110, 170, 232), (40, 180, 210)),
    "Navy Blue": ((22, 34, 100), (20, 24, 62)),
    "Purple": ((122, 50, 164), (84, 34, 112), (176, 140, 206)),
    "Pink": ((244, 134, 182), (222, 60, 130), (250, 196, 214)),
}
"""Family -> typical sRGB colours, from dark to light."""
FAMILIES = tuple(TYPICAL)

_NAMES = {
    "Black": "black",
    "White": "white, off white",
    "Grey": "grey, gray, silver, steel, charcoal, grey melange, metallic",
    "Brown": "brown, coffee brown, mushroom brown, tan, copper, bronze, taupe, rust",
    "Beige": "beige, cream, khaki, nude, skin",
    "Red": "red, maroon, burgundy",
    "Orange": "orange, peach",
    "Yellow": "yellow, gold, mustard",
    "Green": "green, olive, lime green, sea green, fluorescent green, teal",
    "Blue": "blue, turquoise blue, turquoise",
    "Navy Blue": "navy blue, navy",
    "Purple": "purple, lavender, mauve, violet",
    "Pink": "pink, magenta, rose",
}
_FAMILY_OF_NAME = {name: family for family, names in _NAMES.items() for name in names.split(", ")}

LEVEL_BITS = 5
"""Pixels are looked up in a table of 2^15 colours: each channel's last three bits are dropped, its middle is taken."""


def family_index(colour: str | None) -> int:
    """Return the index in FAMILIES of a catalogue's colour name, ignoring case; -1 for none, 'Multi' or an unknown."""
    family = _FAMILY_OF_NAME.get(" ".join(colour.casefold().split())) if colour else None
    return -1 if family is None else FAMILIES.index(family)


def family_shares(pixels_N3: NDArray[np.uint8]) -> Array:
    """Return [F]: the share of the pixels (uint8 sRGB) that each family is nearest to; zeros for no pixel."""
    if not len(pixels_N3):
        return np.zeros(len(FAMILIES))
    level = (pixels_N3 >> (8 - LEVEL_BITS)).astype(np.int64)
    index = (level[:, 0] << 2 * LEVEL_BITS) | (level[:, 1] << LEVEL_BITS) | level[:, 2]
    return np.bincount(_nearest_family()[index], minlength=len(FAMILIES)) / len(pixels_N3)


def srgb_to_lab(rgb_N3: NDArray) -> Array:
    """Return CIELAB [N, 3] (D65, 2 degrees) of sRGB values 0..255."""
    value = np.asarray(rgb_N3, dtype=np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    ratio = linear @ to_xyz.T / to_xyz.sum(axis=1)
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def ciede2000(lab_a: Array, lab_b: Array) -> Array:
    """Return the CIEDE2000 difference of CIELAB colours, broadcast over all but the last axis (k_L = k_C = k_H = 1)."""
    (l_a, a_a, b_a), (l_b, a_b, b_b) = (np.moveaxis(np.asarray(x, dtype=np.float64), -1, 0) for x in (lab_a, lab_b))
    mean_chroma7 = ((np.hypot(a_a, b_a) + np.hypot(a_b, b_b)) / 2) ** 7
    stretch = 1 + 0.5 * (1 - np.sqrt(mean_chroma7 / (mean_chroma7 + 25.0**7)))
    c_a, c_b = np.hypot(stretch * a_a, b_a), np.hypot(stretch * a_b, b_b)
    h_a, h_b = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a_a, b_a), (a_b, b_b)))
    grey = c_a * c_b == 0
    turn = np.where(grey, 0.0, (h_b - h_a + 180) % 360 - 180)
    hue_difference = 2 * np.sqrt(c_a * c_b) * np.sin(np.radians(turn / 2))
    middle = (h_a + h_b) / 2
    across = np.abs(h_a - h_b) > 180
    hue = np.where(grey, h_a + h_b, np.where(across, np.where(h_a + h_b < 360, middle + 180, middle - 180), middle))
    lightness, chroma = (l_a + l_b) / 2, (c_a + c_b) / 2
    t = (
        1
        - 0.17 * np.cos(np.radians(hue - 30))
        + 0.24 * np.cos(np.radians(2 * hue))
        + 0.32 * np.cos(np.radians(3 * hue + 6))
        - 0.20 * np.cos(np.radians(4 * hue - 63))
    )
    s_l = 1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2)
    s_c, s_h = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    rotation = np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    r_t = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7)) * rotation
    l_part, c_part, h_part = (l_b - l_a) / s_l, (c_b - c_a) / s_c, hue_difference / s_h
    return np.sqrt(l_part**2 + c_part**2 + h_part**2 + r_t * c_part * h_part)


@cache
def _nearest_family() -> NDArray[np.int64]:
    """Return for each of the 2^15 table colours the index of its family."""
    step = 1 << (8 - LEVEL_BITS)
    channel = np.arange(1 << LEVEL_BITS) * step + (step - 1) / 2
    red, green, blue = np.meshgrid(channel, channel, channel, indexing="ij")
    table = srgb_to_lab(np.stack([red.ravel(), green.ravel(), blue.ravel()], axis=1))
    nearest = [
        ciede2000(table[:, None], srgb_to_lab(np.array(typical))[None]).min(axis=1) for typical in TYPICAL.values()
    ]
    return np.argmin(np.stack(nearest, axis=1), axis=1)
