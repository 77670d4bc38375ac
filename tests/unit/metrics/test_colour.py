"""Colour as asked: only prompts that ask for a known colour count."""

from __future__ import annotations

import numpy as np

from loupe.metrics.colour import colour_in_top_two, colour_matches, colour_shares
from loupe.metrics.colour_families import FAMILIES
from loupe.metrics.image_set import (
    ASKED_COLOUR,
    ASKED_FAMILY,
    COLOUR_LOGITS,
    COLOUR_SHARES,
    ImageSet,
    asked_colour_classes,
)
from tests.unit.metrics.image_sets import NOTHING, image_set

NAMES = ("Black", "Navy Blue", "Red")


def test_matches_misses_and_prompts_without_a_colour() -> None:
    logits = np.array([[9.0, 0, 1], [0, 0, 5], [0, 7, 0], [1, 0, 0]])
    asked = asked_colour_classes(["Black", "Black", None, "Mustard"], NAMES)
    images = ImageSet(cells=tuple(("p", i) for i in range(4)), arrays={COLOUR_LOGITS: logits, ASKED_COLOUR: asked})
    values = colour_matches(images, NOTHING)
    assert values[:2].tolist() == [1.0, 0.0]
    assert np.isnan(values[2:]).all(), "no colour asked, or one the classifier does not know: no value, not 0"


def test_colour_names_ignore_case() -> None:
    assert asked_colour_classes(["navy blue", "RED", ""], NAMES).tolist() == [1, 2, -1]


def test_shares_and_the_two_largest_families() -> None:
    red, black, white = (FAMILIES.index(name) for name in ("Red", "Black", "White"))
    shares = np.zeros((4, len(FAMILIES)))
    shares[:, [red, black, white]] = (0.3, 0.6, 0.1)
    asked = np.array([red, white, -1, FAMILIES.index("Green")])
    images = image_set(4, **{COLOUR_SHARES: shares, ASKED_FAMILY: asked})
    assert colour_shares(images, NOTHING)[[0, 1, 3]].tolist() == [0.3, 0.1, 0.0]
    assert colour_in_top_two(images, NOTHING)[[0, 1, 3]].tolist() == [1.0, 0.0, 0.0]
    assert np.isnan(colour_shares(images, NOTHING)[2])
    assert np.isnan(colour_in_top_two(images, NOTHING)[2])


def test_a_colour_that_is_nowhere_is_not_among_the_largest() -> None:
    shares = np.zeros((1, len(FAMILIES)))
    shares[0, 0] = 1.0
    images = image_set(1, **{COLOUR_SHARES: shares, ASKED_FAMILY: np.array([3])})
    assert colour_in_top_two(images, NOTHING).tolist() == [0.0]
