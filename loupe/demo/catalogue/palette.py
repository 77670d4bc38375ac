"""The colours of the demo catalogue: twelve well separated families of RGB values.

Names are those of the Kaggle fashion dataset's `baseColour` column. Does not draw.
"""

import numpy as np

RGB = tuple[int, int, int]

FAMILIES: dict[str, RGB] = {
    "Black": (30, 30, 33),
    "White": (243, 243, 241),
    "Grey": (142, 144, 148),
    "Brown": (122, 74, 38),
    "Red": (208, 28, 36),
    "Orange": (243, 124, 20),
    "Yellow": (247, 211, 34),
    "Green": (34, 146, 62),
    "Blue": (38, 122, 226),
    "Navy Blue": (24, 36, 104),
    "Purple": (124, 50, 166),
    "Pink": (245, 134, 182),
}
COLOURS: tuple[str, ...] = tuple(FAMILIES)

BACKDROPS: dict[str, RGB] = {
    "grey": (176, 179, 184),
    "beige": (219, 200, 168),
    "brown": (152, 112, 80),
    "red": (190, 86, 80),
    "orange": (226, 158, 98),
    "yellow": (228, 206, 126),
    "green": (128, 166, 122),
    "blue": (126, 168, 208),
    "purple": (158, 128, 182),
    "pink": (222, 164, 182),
    "dark": (74, 76, 84),
}


def clip_rgb(values: np.ndarray) -> RGB:
    """Round to the nearest RGB triple within [0, 255]."""
    red, green, blue = (int(v) for v in np.clip(np.rint(values), 0, 255))
    return red, green, blue


def shade(rgb: RGB, factor: float) -> RGB:
    """Multiply the brightness; above 1 the colour moves towards white, which shows on saturated hues too."""
    values = np.asarray(rgb, dtype=np.float64)
    if factor <= 1:
        return clip_rgb(values * factor)
    return clip_rgb(values + (255 - values) * min(1.0, factor - 1))


def vary(rgb: RGB, rng: np.random.Generator, *, spread: float = 7.0) -> RGB:
    """One member of a colour family: brightness and each channel move a little; `spread` is in RGB steps."""
    values = np.asarray(rgb, dtype=np.float64) * rng.uniform(0.93, 1.06)
    if max(rgb) - min(rgb) < 12:
        spread *= 0.25
    return clip_rgb(values + np.clip(rng.normal(0, spread, 3), -1.5 * spread, 1.5 * spread))
