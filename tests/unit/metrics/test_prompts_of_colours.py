"""Prompts that are spread over colours: their intervals speak of other prompts of the same colours, simulated.

A colour is a place in feature space, its prompts lie around it, the pictures of a prompt around that. A run draws
other prompts of the same colours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from loupe.metric_specs import METRIC_SPECS
from loupe.metrics import image_set as names
from loupe.metrics.estimates import Estimate, resampling_of
from loupe.metrics.image_set import ImageSet, RealPhotos
from loupe.metrics.kernel_distance import cubic_kernel, squared_mmd, squared_mmd_resamples
from loupe.metrics.scoring import StepScores, score_steps

N_COLOURS, OF_EACH, SEEDS, SIDE, N_RUNS = 8, 4, 2, 8, 100
COLOURS = tuple(f"colour {i}" for i in range(N_COLOURS) for _ in range(OF_EACH))
PROMPTS = tuple(f"p{i}" for i in range(len(COLOURS)))
CELLS = tuple((prompt, index) for prompt in PROMPTS for index in range(SEEDS))
KEYS = ("fd_demo", "kid_demo", "cmmd_demo", "vendi_demo", "clip_demo")
SPECS = {key: METRIC_SPECS[key] for key in KEYS}
LEAST_HELD = 0.95 - 4 * np.sqrt(0.95 * 0.05 / N_RUNS)
"""Four standard errors below what is claimed."""


def drawn(rng: np.random.Generator, prompts_PD: np.ndarray, *, scale: float, shift: float) -> ImageSet:
    """What a model draws: closer together for a scale below 1, beside the photos where shifted."""
    n = len(CELLS)
    features = scale * (np.repeat(prompts_PD, SEEDS, axis=0) + 0.5 * rng.normal(size=(n, SIDE))) + shift
    return ImageSet(
        CELLS,
        {
            names.FEATURES: features,
            names.CLIP_IMAGE: features + 3,
            names.CLIP_TEXT: np.repeat(prompts_PD, SEEDS, axis=0) + 3,
            names.ASKED_FAMILY: np.zeros(n, dtype=np.int64),
        },
    )


@dataclass(frozen=True)
class Simulated:
    """The same pictures, resampled within colours and regardless of them."""

    within: list[list[StepScores]] = field(default_factory=list)
    regardless: list[list[StepScores]] = field(default_factory=list)


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    rng, found = np.random.default_rng(7), Simulated()
    colours_PD = np.repeat(rng.normal(size=(N_COLOURS, SIDE)), OF_EACH, axis=0)

    def prompts() -> np.ndarray:
        return colours_PD + 0.5 * rng.normal(size=colours_PD.shape)

    photos = drawn(rng, prompts(), scale=1.0, shift=0.0)
    real = RealPhotos(train=photos, held_out=photos)
    for _ in range(N_RUNS):
        of_run = prompts()
        sets = {0: drawn(rng, of_run, scale=1.0, shift=0.0), 10: drawn(rng, of_run, scale=0.7, shift=0.3)}
        found.within.append(score_steps(sets, real, SPECS, resampling_of(PROMPTS, 200, rng, colours=COLOURS)))
        found.regardless.append(score_steps(sets, real, SPECS, resampling_of(PROMPTS, 200, rng)))
    return found


def values_and_differences(runs: list[list[StepScores]], key: str) -> tuple[list[Estimate], list[Estimate]]:
    return [scores[1].values[key] for scores in runs], [scores[1].differences[key] for scores in runs]


def held(estimates: list[Estimate]) -> float:
    """How often the interval holds the mean over all runs."""
    truth = np.mean([e.value for e in estimates])
    return float(np.mean([e.interval.contains(truth) for e in estimates]))


def width(estimates: list[Estimate]) -> float:
    """The mean width of the intervals, in parts of the one that 95 % of the values take."""
    taken = np.subtract(*np.percentile([e.value for e in estimates], [97.5, 2.5]))
    return float(np.mean([e.interval.hi - e.interval.lo for e in estimates]) / taken)


@pytest.mark.parametrize("key", KEYS)
def test_intervals_hold_what_other_prompts_of_the_same_colours_give(simulated: Simulated, key: str) -> None:
    for estimates in values_and_differences(simulated.within, key):
        assert held(estimates) >= LEAST_HELD


@pytest.mark.parametrize("key", ["fd_demo", "kid_demo", "clip_demo"])
def test_that_colours_differ_would_make_intervals_far_too_wide(simulated: Simulated, key: str) -> None:
    within, _ = values_and_differences(simulated.within, key)
    regardless, _ = values_and_differences(simulated.regardless, key)
    assert width(within) < 1.35
    assert width(regardless) > 1.3 * width(within)


def test_resamples_of_a_kernel_distance_lie_about_its_value_though_prompts_of_a_colour_meet_less() -> None:
    """Colours far apart: without the weight of such pairs every resample would be too near to the photos."""
    rng = np.random.default_rng(0)
    colours_PD = np.repeat(3 * rng.normal(size=(N_COLOURS, SIDE)), OF_EACH, axis=0)
    x = drawn(rng, colours_PD + 0.2 * rng.normal(size=colours_PD.shape), scale=1.0, shift=0.0).array(names.FEATURES)
    y = rng.normal(size=(40, SIDE))
    resampling = resampling_of(PROMPTS, 2000, rng, colours=COLOURS)
    prompts = np.repeat(np.arange(len(PROMPTS)), SEEDS)
    draws = squared_mmd_resamples(x, y, cubic_kernel, prompts, resampling.weights_of(CELLS))
    assert abs(draws.mean() - squared_mmd(x, y, cubic_kernel)) < 0.1 * draws.std()
    assert np.isfinite(draws).all()


def test_prompts_whose_pictures_are_missing_leave_their_colour_to_the_others() -> None:
    """Of one colour a prompt alone has pictures: it keeps counting, and takes no degree of freedom."""
    rng = np.random.default_rng(1)
    resampling = resampling_of(PROMPTS, 4000, rng, colours=COLOURS)
    cells = tuple(cell for cell in CELLS if cell[0] not in PROMPTS[1:OF_EACH])
    draws = rng.normal(size=4000)
    assert resampling.widened_for(draws, cells).std() > resampling.widened_for(draws, CELLS).std() > draws.std()
    assert (resampling.widened_for(draws, CELLS[:SEEDS]) == draws).all()
