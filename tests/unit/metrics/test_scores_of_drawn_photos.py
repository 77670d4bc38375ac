"""The demo's trained scorers on drawings of its catalogue: what moves when pictures are where they should not be."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from loupe.demo.catalogue import render_item, sample_item
from loupe.metrics.estimates import resampling_of
from loupe.metrics.image_set import ImageSet, RealPhotos
from loupe.metrics.scoring import StepScores, score_steps
from tests.unit.metrics.demo_scorers import DemoScorers, Shown

COLOURS = ("Red", "Blue", "Yellow", "Black", "Green", "Pink", "Orange", "Purple")
SEEDS, SIDE_PX = 4, 128


def drawn(first_seed: int, *, prefix: str) -> list[Shown]:
    """Four shoes of each colour; a prompt is a colour."""
    pictures = []
    for number, colour in enumerate(COLOURS):
        for index in range(SEEDS):
            item = sample_item(
                np.random.default_rng([first_seed, number, index]), article_type="Casual Shoes", colour=colour
            )
            pixels = render_item(item, look="catalogue", size_px=SIDE_PX)
            text = f"a professional product photo of {colour.lower()} casual shoes, centered on white background"
            pictures.append(Shown((f"{prefix}{colour}", index), pixels, text, colour))
    return pictures


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, StepScores]:
    """Of drawings as asked (base), of the same with the pictures of two prompts swapped, and in another order."""
    scorers = DemoScorers(tmp_path_factory.mktemp("store"))
    photos = scorers.measure(drawn(1, prefix="photo "))
    right = drawn(2, prefix="")
    pixels = [shown.pixels for shown in right]
    of_red, of_blue = slice(0, SEEDS), slice(SEEDS, 2 * SEEDS)
    pixels[of_red], pixels[of_blue] = pixels[of_blue], pixels[of_red]
    wrong = [Shown(s.cell, moved, s.text, s.colour) for s, moved in zip(right, pixels, strict=True)]
    sets: dict[int, ImageSet] = {0: scorers.measure(right), 1: scorers.measure(wrong)}
    sets[2] = sets[0].rows(np.random.default_rng(3).permutation(len(right)))
    resampling = resampling_of(COLOURS, 200, np.random.default_rng(4))
    found = score_steps(sets, RealPhotos(train=photos, held_out=photos), scorers.specs, resampling)
    return dict(zip(("as asked", "swapped", "shuffled"), found, strict=True))


@pytest.mark.parametrize("key", ["clip_demo", "clip_gap_demo", "colour_demo", "colour_share", "colour_top2"])
def test_swapping_the_pictures_of_two_prompts_lowers_what_speaks_of_prompts(
    scores: Mapping[str, StepScores], key: str
) -> None:
    difference = scores["swapped"].differences[key]
    assert scores["swapped"].values[key].value < scores["as asked"].values[key].value
    assert difference.value < 0
    lo, hi = difference.interval.lo, difference.interval.hi
    assert hi < -lo / 4, "two of eight prompts are few to be sure of, but it lies on one side"
    touched = 2 * SEEDS / (len(COLOURS) * SEEDS)
    if key == "colour_demo":
        assert difference.value == pytest.approx(-touched, abs=0.1), "a quarter of the pictures has the other colour"


@pytest.mark.parametrize(
    "key",
    ["fd_demo", "kid_demo", "cmmd_demo", "precision_demo", "recall_demo", "coverage_demo", "is_demo", "vendi_demo"],
)
def test_swapping_the_pictures_of_two_prompts_leaves_what_speaks_of_the_whole_alone(
    scores: Mapping[str, StepScores], key: str
) -> None:
    expected = scores["as asked"].values[key].value
    assert scores["swapped"].values[key].value == pytest.approx(expected, rel=1e-9)


def test_the_order_of_the_pictures_changes_no_score(scores: Mapping[str, StepScores]) -> None:
    for key, estimate in scores["as asked"].values.items():
        assert scores["shuffled"].values[key].value == pytest.approx(estimate.value, rel=1e-9), key
        assert scores["shuffled"].differences[key].value == pytest.approx(0, abs=1e-8), key


def test_colours_drawn_as_asked_are_seen_as_asked(scores: Mapping[str, StepScores]) -> None:
    """Or the swap would prove nothing."""
    assert scores["as asked"].values["colour_demo"].value >= 0.9
    assert scores["as asked"].values["colour_top2"].value >= 0.9
