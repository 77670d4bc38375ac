"""Colour families: CIELAB and CIEDE2000 against published values, names of catalogues, shares of pixels."""

from __future__ import annotations

import numpy as np
import pytest

from loupe.metrics.colour_families import (
    FAMILIES,
    TYPICAL,
    ciede2000,
    family_index,
    family_shares,
    srgb_to_lab,
)

SHARMA = (
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, 3.1571, -77.2803), (50, 0, -82.7485), 2.8615),
    ((50, 2.8361, -74.0200), (50, 0, -82.7485), 3.4412),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (50, 3.2592, 0.3350), 1.0000),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
)
"""Sharma, Wu & Dalal 2005, table 1."""


@pytest.mark.parametrize(("a", "b", "expected"), SHARMA)
def test_ciede2000_gives_the_published_values(a: tuple, b: tuple, expected: float) -> None:
    one, other = np.array([a], dtype=float), np.array([b], dtype=float)
    assert ciede2000(one, other)[0] == pytest.approx(expected, abs=1e-4)
    assert ciede2000(other, one)[0] == pytest.approx(expected, abs=1e-4)


def test_lab_of_known_colours() -> None:
    lab = srgb_to_lab(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255], [119, 119, 119]]))
    assert lab[0] == pytest.approx([100, 0, 0], abs=1e-6)
    assert lab[1] == pytest.approx([0, 0, 0], abs=1e-6)
    assert lab[2] == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    assert lab[3] == pytest.approx([32.30, 79.19, -107.86], abs=0.02)
    assert lab[4, 1:] == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_typical_colour_belongs_to_its_family(family: str) -> None:
    for rgb in TYPICAL[family]:
        shares = family_shares(np.tile(np.array(rgb, dtype=np.uint8), (7, 1)))
        assert shares[FAMILIES.index(family)] == 1.0


def test_shares_count_pixels_and_nothing_has_none() -> None:
    pixels = np.array([TYPICAL["Red"][0]] * 3 + [TYPICAL["Blue"][0]], dtype=np.uint8)
    shares = family_shares(pixels)
    assert (shares[FAMILIES.index("Red")], shares[FAMILIES.index("Blue")]) == (0.75, 0.25)
    assert family_shares(np.zeros((0, 3), dtype=np.uint8)).tolist() == [0.0] * len(FAMILIES)


def test_names_of_a_catalogue() -> None:
    named = {"Navy Blue": "Navy Blue", "OFF WHITE": "White", "coffee  brown": "Brown", "Teal": "Green", "Grey": "Grey"}
    assert {name: FAMILIES[family_index(name)] for name in named} == named
    assert [family_index(name) for name in ("Multi", "", None, "sparkling")] == [-1] * 4
    assert all(FAMILIES[family_index(family)] == family for family in FAMILIES)
