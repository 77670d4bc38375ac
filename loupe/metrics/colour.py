"""Whether the colour seen in a picture is the colour its prompt asks for, by the demo classifier's stored logits."""

from __future__ import annotations

import numpy as np

from loupe.metrics.image_set import ASKED_COLOUR, COLOUR_LOGITS, Array, ImageSet


def colour_matches(images: ImageSet) -> Array:
    """Return [N]: 1 where the most likely colour is the asked one, 0 where not, NaN where none is asked for."""
    asked = images.array(ASKED_COLOUR)
    seen = images.array(COLOUR_LOGITS).argmax(axis=1)
    return np.where(asked >= 0, (seen == asked).astype(np.float64), np.nan)
