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
from loupe.metrics.bootstrap import interactions
from loupe.metrics.estimates import Estimate, resampling_of, set_estimate
from loupe.metrics.image_set import ImageSet, RealPhotos
from loupe.metrics.scoring import StepScores, score_steps

N_COLOURS, OF_EACH, SEEDS, SIDE, N_RUNS = 12, 3, 2, 8, 100
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
    colours_PD = np.repeat(1.5 * rng.normal(size=(N_COLOURS, SIDE)), OF_EACH, axis=0)

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


def estimates_of(runs: list[list[StepScores]], key: str) -> dict[str, list[Estimate]]:
    return {
        "base": [scores[0].values[key] for scores in runs],
        "checkpoint": [scores[1].values[key] for scores in runs],
        "difference": [scores[1].differences[key] for scores in runs],
    }


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
    for estimates in estimates_of(simulated.within, key).values():
        assert held(estimates) >= LEAST_HELD


@pytest.mark.parametrize("key", KEYS)
def test_intervals_are_not_far_too_wide(simulated: Simulated, key: str) -> None:
    for name, estimates in estimates_of(simulated.within, key).items():
        assert width(estimates) < 1.9, name


@pytest.mark.parametrize("key", ["fd_demo", "kid_demo", "cmmd_demo", "clip_demo"])
def test_that_colours_differ_would_make_them_so(simulated: Simulated, key: str) -> None:
    within, regardless = (estimates_of(runs, key)["checkpoint"] for runs in (simulated.within, simulated.regardless))
    assert width(regardless) > 1.5 * width(within)


@pytest.mark.parametrize("strata", [COLOURS, ("any",) * len(COLOURS), ("a",) * 3 + ("b",) * 2 + ("c",) * 31])
def test_what_pairs_have_beyond_their_prompts_is_no_sum_of_parts(strata: tuple[str, ...]) -> None:
    """Every row of a block of two strata sums to 0, and what prompts have on their own leaves nothing."""
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(len(strata), len(strata)))
    pairs = pairs + pairs.T
    found = interactions(pairs, strata)
    for stratum in set(strata):
        assert found[:, np.equal(strata, stratum)].sum(axis=1) == pytest.approx(0, abs=1e-12)
    assert found == pytest.approx(found.T)
    assert not np.diag(found).any()
    assert np.abs(found).max() > 0.1
    own, of_blocks = rng.normal(size=len(strata)), rng.normal(size=(len(strata), len(strata)))
    place = [list(dict.fromkeys(strata)).index(stratum) for stratum in strata]
    sums = own[:, None] + own + (of_blocks + of_blocks.T)[np.ix_(place, place)]
    assert interactions(sums, strata) == pytest.approx(0, abs=1e-12)
    assert interactions(pairs + sums, strata) == pytest.approx(found)


def test_draws_of_a_distance_by_kernels_are_skew_as_it_is() -> None:
    """A mean over pairs of values, where a prompt is far out: the square of it, which no sum of parts is."""
    rng = np.random.default_rng(3)
    prompts = tuple(f"p{i}" for i in range(12))
    cells, resampling = tuple((p, 0) for p in prompts), resampling_of(prompts, 50_000, rng)
    x = rng.exponential(size=12)
    pairs = np.outer(x, x) / (12 * 11)
    np.fill_diagonal(pairs, 0)
    value = pairs.sum()
    without = np.array([np.delete(np.delete(pairs, i, 0), i, 1).sum() * 12 / 10 for i in range(12)])
    linear, whole = (set_estimate(value, without, cells, resampling, pairs_PP=p).draws for p in (None, pairs))
    assert whole.mean() == pytest.approx(value, rel=0.02)
    assert skewness(whole) > skewness(linear) + 0.2


def skewness(draws: np.ndarray) -> float:
    return float((((draws - draws.mean()) / draws.std()) ** 3).mean())


def test_prompts_whose_pictures_are_missing_leave_their_colour_to_the_others() -> None:
    """Of one colour a prompt alone has pictures: it keeps counting, and takes no degree of freedom."""
    rng = np.random.default_rng(1)
    resampling = resampling_of(PROMPTS, 4000, rng, colours=COLOURS)
    cells = tuple(cell for cell in CELLS if cell[0] not in PROMPTS[1:OF_EACH])
    draws = rng.normal(size=4000)
    assert resampling.widened_for(draws, cells).std() > resampling.widened_for(draws, CELLS).std() > draws.std()
    assert (resampling.widened_for(draws, CELLS[:SEEDS]) == draws).all()
