"""Whether a picture has the colour that its prompt asks for: by its pixels, and by the demo classifier's stored logits.

The two see different things: the classifier names the product's colour as a person would, the pixels count shadows and
highlights too. Each has its ceiling in the real photos' own value, which a product painted evenly exceeds: what counts
when a checkpoint is chosen stops there, prompt by prompt.
"""

from __future__ import annotations

import numpy as np

from loupe.metrics.colour_families import FAMILIES
from loupe.metrics.diversity import LEAST_PHOTOS
from loupe.metrics.image_set import (
    ASKED_COLOUR,
    ASKED_FAMILY,
    COLOUR_LOGITS,
    COLOUR_SHARES,
    FOREGROUND_SHARE,
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


def colour_ratios(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N] in [0, 1]: the mean `colour_shares` of the pictures of an image's prompt, in parts of that of photos.

    Photos are the train photos of the asked family that show a product, of all families where fewer than five do. More
    than they have counts as 1; by chance some prompts have less, so photos in groups as large score below 1 (the null
    says how far) and even paint 1. NaN where no colour is asked for, or where the photos have nothing of theirs.
    """
    aims, asked, shares = _shares_of_families(real.train), images.array(ASKED_FAMILY), colour_shares(images, real)
    values = np.full(len(images), np.nan)
    prompts = images.prompt_index()
    for prompt in np.unique(prompts[asked >= 0]):
        rows = np.flatnonzero((prompts == prompt) & (asked >= 0))
        aim = aims[asked[rows[0]]]
        if aim > 0:
            values[rows] = min(1.0, shares[rows].mean() / aim)
    return values


def _shares_of_families(photos: ImageSet) -> Array:
    """Return [F]: the mean share of the asked family in photos of it; NaN where no photo asks for any colour."""
    aims = np.full(len(FAMILIES), np.nan)
    asked = np.where(photos.array(FOREGROUND_SHARE) > 0, photos.array(ASKED_FAMILY), -1)
    if (asked >= 0).any():
        shares = np.take_along_axis(photos.array(COLOUR_SHARES), np.maximum(asked, 0)[:, None], axis=1)[:, 0]
        aims[:] = shares[asked >= 0].mean()
        for family in np.unique(asked[asked >= 0]):
            if (asked == family).sum() >= LEAST_PHOTOS:
                aims[family] = shares[asked == family].mean()
    return aims


def colour_in_top_two(images: ImageSet, real: RealPhotos) -> Array:
    """Return [N]: 1 where the asked family is among the two largest of the product, else 0; NaN where none is asked."""
    asked_share = colour_shares(images, real)
    larger = (images.array(COLOUR_SHARES) > asked_share[:, None]).sum(axis=1)
    return np.where(np.isnan(asked_share), np.nan, ((larger < 2) & (asked_share > 0)).astype(np.float64))
