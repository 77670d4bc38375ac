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


def swapped(right: list[Shown], *, n_pairs: int) -> list[Shown]:
    """Give the first prompt the pictures of the second and the reverse, and so on for `n_pairs` pairs of prompts."""
    pixels = [shown.pixels for shown in right]
    for start in range(0, 2 * n_pairs * SEEDS, 2 * SEEDS):
        one, other = slice(start, start + SEEDS), slice(start + SEEDS, start + 2 * SEEDS)
        pixels[one], pixels[other] = pixels[other], pixels[one]
    return [Shown(s.cell, moved, s.text, s.colour) for s, moved in zip(right, pixels, strict=True)]


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, StepScores]:
    """Of drawings as asked (base), of the same with the pictures of two or of all prompts swapped, and shuffled."""
    scorers = DemoScorers(tmp_path_factory.mktemp("store"))
    photos = scorers.measure(drawn(1, prefix="photo "))
    right = drawn(2, prefix="")
    sets: dict[int, ImageSet] = {0: scorers.measure(right), 1: scorers.measure(swapped(right, n_pairs=1))}
    sets[2] = sets[0].rows(np.random.default_rng(3).permutation(len(right)))
    sets[3] = scorers.measure(swapped(right, n_pairs=len(COLOURS) // 2))
    resampling = resampling_of(COLOURS, 200, np.random.default_rng(4))
    found = score_steps(sets, RealPhotos(train=photos, held_out=photos), scorers.specs, resampling)
    return dict(zip(("as asked", "swapped", "shuffled", "all swapped"), found, strict=True))


@pytest.mark.parametrize(
    "key", ["clip_demo", "clip_gap_demo", "colour_demo", "colour_ratio", "colour_share", "colour_top2"]
)
def test_swapping_the_pictures_of_two_prompts_lowers_what_speaks_of_prompts(
    scores: Mapping[str, StepScores], key: str
) -> None:
    difference = scores["swapped"].differences[key]
    assert scores["swapped"].values[key].value < scores["as asked"].values[key].value
    assert difference.value < 0
    assert scores["all swapped"].differences[key].interval.hi < 0, "two of eight prompts are few to be sure of"
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
