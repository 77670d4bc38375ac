"""Colour as asked: only prompts that ask for a known colour count."""

from __future__ import annotations

import numpy as np
import pytest

from loupe.metric_specs import METRIC_SPECS
from loupe.metrics.colour import colour_in_top_two, colour_matches, colour_ratios, colour_shares
from loupe.metrics.colour_families import FAMILIES
from loupe.metrics.estimates import mean_difference, mean_estimate, resampling_of
from loupe.metrics.image_set import (
    ASKED_COLOUR,
    ASKED_FAMILY,
    COLOUR_LOGITS,
    COLOUR_SHARES,
    FOREGROUND_SHARE,
    ImageSet,
    RealPhotos,
    asked_colour_classes,
)
from tests.unit.metrics.image_sets import NOTHING, image_set, real_photos

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


RED, BLACK = FAMILIES.index("Red"), FAMILIES.index("Black")


def of_families(asked: list[int], shares: list[float], *, seeds: int = 1, product: float = 0.3) -> ImageSet:
    """Pictures whose product has this share of the asked colour."""
    found = np.zeros((len(asked), len(FAMILIES)))
    found[np.arange(len(asked)), np.maximum(asked, 0)] = shares
    arrays = {COLOUR_SHARES: found, ASKED_FAMILY: np.array(asked), FOREGROUND_SHARE: np.full(len(asked), product)}
    return image_set(len(asked), seeds=seeds, **arrays)


def photos(n_red: int = 5, n_black: int = 5) -> RealPhotos:
    """Red photos have 0.4 of their colour, black ones 0.8."""
    return real_photos(of_families([RED] * n_red + [BLACK] * n_black, [0.4] * n_red + [0.8] * n_black))


def test_a_prompt_is_compared_with_photos_of_its_colour_and_counts_up_to_them() -> None:
    """The mean of a prompt's pictures is capped, not each picture: photos vary around their mean as well."""
    images = of_families([RED, RED, BLACK, BLACK, RED, RED], [0.1, 0.3, 0.2, 1.0, 0.9, 0.7], seeds=2)
    assert colour_ratios(images, photos()).tolist() == pytest.approx([0.5, 0.5, 0.75, 0.75, 1.0, 1.0])


def test_an_evenly_painted_product_is_no_better_than_real_photos() -> None:
    real = photos()
    assert colour_ratios(real.train, real).tolist() == [1.0] * 10
    assert colour_ratios(of_families([RED, BLACK], [1.0, 1.0]), real).tolist() == [1.0, 1.0]


def test_a_colour_of_few_photos_is_compared_with_those_of_all() -> None:
    images = of_families([RED, BLACK, FAMILIES.index("Pink"), -1], [0.2, 0.2, 0.2, 0.2])
    values = colour_ratios(images, photos(n_red=4, n_black=6))
    of_all = (4 * 0.4 + 6 * 0.8) / 10
    assert values[:3].tolist() == pytest.approx([0.2 / of_all, 0.25, 0.2 / of_all])
    assert np.isnan(values[3])


def test_photos_that_show_no_product_are_no_measure_of_a_colour() -> None:
    seen, unseen = of_families([RED] * 5, [0.4] * 5), of_families([RED] * 50, [0.0] * 50, product=0.0)
    arrays = {name: np.concatenate([seen.arrays[name], unseen.arrays[name]]) for name in seen.arrays}
    assert colour_ratios(of_families([RED], [0.2]), real_photos(image_set(55, **arrays))).tolist() == [0.5]
    assert np.isnan(colour_ratios(of_families([RED], [0.2]), real_photos(unseen))).all()
    assert np.isnan(colour_ratios(of_families([RED], [0.2]), real_photos(of_families([-1], [0.0])))).all()


def test_a_colour_that_photos_of_it_do_not_show_is_no_measure() -> None:
    """Of grey shoes whose pixels are all seen as black nothing can be asked."""
    real = real_photos(of_families([RED] * 5 + [BLACK] * 5, [0.0] * 5 + [0.8] * 5))
    values = colour_ratios(of_families([RED, BLACK], [0.3, 0.4]), real)
    assert np.isnan(values[0])
    assert values[1] == 0.5


def test_the_evidence_of_a_prompt_is_one_however_many_pictures_it_has() -> None:
    """All pictures of a prompt have one value: four prompts at 1 say as much with 64 pictures each as with one."""
    spec, found = METRIC_SPECS["colour_ratio"], {}
    for seeds in (1, 64):
        cells = tuple((f"p{i // seeds}", i % seeds) for i in range(4 * seeds))
        resampling = resampling_of(tuple(f"p{i}" for i in range(4)), 100, np.random.default_rng(0))
        own = mean_estimate(np.ones(len(cells)), cells, spec, resampling)
        interval = mean_difference(own, own, spec, resampling).interval
        found[seeds] = (own.interval.lo, own.interval.hi, interval.lo, interval.hi)
    assert found[1] == found[64]
    assert found[1][0] < 0.6
