"""Colour as asked: only prompts that ask for a known colour count."""

from __future__ import annotations

import numpy as np

from loupe.metrics.colour import colour_matches
from loupe.metrics.image_set import ASKED_COLOUR, COLOUR_LOGITS, ImageSet, asked_colour_classes

NAMES = ("Black", "Navy Blue", "Red")


def test_matches_misses_and_prompts_without_a_colour() -> None:
    logits = np.array([[9.0, 0, 1], [0, 0, 5], [0, 7, 0], [1, 0, 0]])
    asked = asked_colour_classes(["Black", "Black", None, "Mustard"], NAMES)
    images = ImageSet(cells=tuple(("p", i) for i in range(4)), arrays={COLOUR_LOGITS: logits, ASKED_COLOUR: asked})
    values = colour_matches(images)
    assert values[:2].tolist() == [1.0, 0.0]
    assert np.isnan(values[2:]).all(), "no colour asked, or one the classifier does not know: no value, not 0"


def test_colour_names_ignore_case() -> None:
    assert asked_colour_classes(["navy blue", "RED", ""], NAMES).tolist() == [1, 2, -1]
