"""Scores of whole sets: intervals of values and of differences between models that truly differ, simulated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from loupe.metric_specs import METRIC_SPECS
from loupe.metrics import image_set as names
from loupe.metrics.bootstrap import Interval, percentile_interval
from loupe.metrics.estimates import (
    Estimate,
    bounded,
    mean_estimate,
    resampling_of,
    set_estimate,
    share_of_photos_difference,
)
from loupe.metrics.frechet import frechet_resamples
from loupe.metrics.image_set import ImageSet, RealPhotos
from loupe.metrics.scoring import StepScores, score_steps
from loupe.metrics.share_intervals import wilson_interval

N_PROMPTS, SEEDS, SIDE, N_RUNS = 16, 4, 8, 120
PROMPTS = tuple(f"p{i}" for i in range(N_PROMPTS))
CELLS = tuple((prompt, index) for prompt in PROMPTS for index in range(SEEDS))
KEYS = ("fd_demo", "recall_demo", "coverage_demo", "vendi_demo", "is_demo")
SPECS = {key: METRIC_SPECS[key] for key in KEYS}
LEAST_HELD = 0.95 - 4 * np.sqrt(0.95 * 0.05 / N_RUNS)
"""Four standard errors below what is claimed."""


def drawn(rng: np.random.Generator, centres: np.ndarray, *, scale: float, shift: float) -> ImageSet:
    """What a model draws for prompts of these centres: less diverse for a scale below 1, beside the photos shifted."""
    n = len(centres) * SEEDS
    features = scale * (np.repeat(centres, SEEDS, axis=0) + 0.8 * rng.normal(size=(n, SIDE))) + shift
    arrays = {names.FEATURES: features, names.LOGITS: 1.5 * features, names.ASKED_FAMILY: np.zeros(n, dtype=np.int64)}
    return ImageSet(tuple((f"p{i // SEEDS}", i % SEEDS) for i in range(n)), arrays)


def photos() -> RealPhotos:
    rng = np.random.default_rng(99)
    taken = drawn(rng, 0.6 * rng.normal(size=(15, SIDE)), scale=1.0, shift=0.0)
    return RealPhotos(train=taken, held_out=taken)


@dataclass(frozen=True)
class Simulated:
    """Many runs of two models, new prompts and seeds in each."""

    runs: list[list[StepScores]]
    naive: list[Estimate]
    """The Fréchet distances of the first model with the interval of their bootstrap."""


@pytest.fixture(
    scope="module", params=[(1.0, 0.0), (0.5, 0.0), (1.0, 0.8), (0.4, 0.3)], ids=["alike", "narrow", "off", "both"]
)
def simulated(request: pytest.FixtureRequest) -> Simulated:
    rng, real, found = np.random.default_rng(1), photos(), Simulated([], [])
    scale, shift = request.param
    for _ in range(N_RUNS):
        centres = 0.6 * rng.normal(size=(N_PROMPTS, SIDE))
        sets = {0: drawn(rng, centres, scale=1.0, shift=0.0), 10: drawn(rng, centres, scale=scale, shift=shift)}
        resampling = resampling_of(PROMPTS, 200, rng)
        found.runs.append(score_steps(sets, real, SPECS, resampling))
        copies = frechet_resamples(sets[0], real, resampling.weights_of(CELLS))
        value = found.runs[-1][0].values["fd_demo"].value
        found.naive.append(Estimate(value, copies, percentile_interval(copies)))
    return found


def held(estimates: list[Estimate]) -> float:
    """How often the interval holds the mean over all runs."""
    truth = np.mean([e.value for e in estimates])
    return float(np.mean([e.interval.contains(truth) for e in estimates]))


def width_needed(estimates: list[Estimate]) -> float:
    """The mean width of the intervals, in parts of the one that 95 % of the values take."""
    taken = np.subtract(*np.percentile([e.value for e in estimates], [97.5, 2.5]))
    return float(np.mean([e.interval.hi - e.interval.lo for e in estimates]) / taken)


@pytest.mark.parametrize("key", KEYS)
def test_intervals_of_differences_hold_the_truth_and_are_not_far_too_wide(simulated: Simulated, key: str) -> None:
    differences = [scores[1].differences[key] for scores in simulated.runs]
    assert held(differences) >= LEAST_HELD
    assert width_needed(differences) < 2


@pytest.mark.parametrize("key", KEYS)
def test_intervals_of_values_hold_what_another_run_of_this_size_gives(simulated: Simulated, key: str) -> None:
    values = [scores[1].values[key] for scores in simulated.runs]
    assert held(values) >= LEAST_HELD
    assert width_needed(values) < 2


def test_the_bootstrap_of_a_frechet_distance_would_leave_the_truth_out(simulated: Simulated) -> None:
    assert held(simulated.naive) < 0.8 < LEAST_HELD


@pytest.mark.parametrize("key", KEYS)
def test_the_value_lies_in_the_middle_of_its_draws(simulated: Simulated, key: str) -> None:
    for scores in simulated.runs[:20]:
        for found in (scores[1].values[key], scores[1].differences[key]):
            assert abs(found.draws.mean() - found.value) <= 0.3 * found.draws.std() + 1e-9


def test_a_mean_taken_as_a_score_of_a_set_has_the_draws_of_its_bootstrap() -> None:
    rng = np.random.default_rng(5)
    values, resampling = rng.normal(size=len(CELLS)), resampling_of(PROMPTS, 50, rng)
    own = mean_estimate(values, CELLS, METRIC_SPECS["clip_demo"], resampling)
    without = np.array([np.mean([v for v, (p, _) in zip(values, CELLS, strict=True) if p != kept]) for kept in PROMPTS])
    found = set_estimate(float(values.mean()), without, CELLS, resampling)
    assert found.draws == pytest.approx(own.draws)
    assert (found.interval.lo, found.interval.hi) == pytest.approx((own.interval.lo, own.interval.hi))


def test_the_draws_vary_as_the_jackknife_says() -> None:
    """Any one prompt in place of any other: the mean square over single exchanges is what resamples have on average."""
    n = 6
    cells = tuple((f"p{i}", 0) for i in range(n))
    without = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
    resampling = resampling_of(tuple(p for p, _ in cells), 200_000, np.random.default_rng(0))
    jackknife = (n - 1) / n * ((without - without.mean()) ** 2).sum()
    draws = set_estimate(2.0, without, cells, resampling).draws
    widening = 2.5706 / 1.95996  # Student's t of five degrees of freedom, for the normal deviate
    assert draws.std() == pytest.approx(np.sqrt(jackknife) * widening, rel=0.01)


@pytest.mark.parametrize(
    ("key", "value", "lo", "hi"),
    [("fd_demo", 2.0, 0, 9), ("is_demo", 2.0, 1, 9), ("vendi_demo", 2.0, 1, 9), ("recall_demo", 0.5, 0, 1),
     ("coverage_demo", 0.5, 0, 1), ("fd_demo", -1e-13, -1e-13, 9), ("kid_demo", 2.0, -3, 9)],
)  # fmt: skip
def test_an_interval_holds_no_score_that_there_cannot_be(key: str, value: float, lo: float, hi: float) -> None:
    """A Fréchet distance of equal sets may be rounded below 0."""
    found = bounded(Estimate(value, np.zeros(0), Interval(-3.0, 9.0)), METRIC_SPECS[key], 55).interval
    assert (found.lo, found.hi) == (lo, hi)


def test_a_share_is_of_the_held_out_photos_whatever_the_others_number() -> None:
    """All 60 photos are covered: Wilson's interval of 60 of 60, and not of 6 of 6."""
    rng, held_out = np.random.default_rng(3), photos().held_out
    real = RealPhotos(train=held_out.rows(range(6)), held_out=held_out)
    near = held_out.array(names.FEATURES)[np.arange(len(CELLS)) % 60] + 1e-3 * rng.normal(size=(len(CELLS), SIDE))
    images = ImageSet(CELLS, {names.FEATURES: near})
    specs = {"coverage_demo": METRIC_SPECS["coverage_demo"]}
    (scores,) = score_steps({0: images}, real, specs, resampling_of(PROMPTS, 100, rng))
    assert scores.values["coverage_demo"].value == 1.0
    assert scores.values["coverage_demo"].interval.lo <= wilson_interval(1.0, 60).lo
    assert scores.values["coverage_demo"].interval.lo > wilson_interval(1.0, 6).lo


@pytest.mark.parametrize(("interval", "expected"), [((-1.7, 0.2), (-1.0, 0.2)), ((0.4, 1.3), (0.4, 1.0))])
def test_shares_differ_by_no_more_than_all(interval: tuple[float, float], expected: tuple[float, float]) -> None:
    a, b = (Estimate(value, np.zeros(0), None) for value in (0.9, 0.2))
    found = share_of_photos_difference(Estimate(0.7, np.zeros(0), Interval(*interval)), a, b, 55).interval
    assert (found.lo, found.hi) == expected


def test_a_distance_of_pictures_that_differ_widely_is_not_below_zero() -> None:
    """Three prompts, of which one is like none of the others."""
    rng, real = np.random.default_rng(0), photos()
    images = drawn(rng, np.outer([0.0, 0.0, 5.0], np.eye(SIDE)[0]), scale=1.0, shift=0.0)
    (scores,) = score_steps({0: images}, real, {"fd_demo": SPECS["fd_demo"]}, resampling_of(PROMPTS[:3], 200, rng))
    assert scores.values["fd_demo"].draws.min() < 0
    assert scores.values["fd_demo"].interval.lo == 0


def test_prompts_that_are_missing_take_nothing_from_what_the_others_say() -> None:
    """Resamples of 16 prompts hold four of the 4 that have pictures on average, sometimes more or fewer."""
    rng = np.random.default_rng(0)
    cells, without = tuple((f"p{i}", 0) for i in range(4)), 5.0 + np.array([0.3, -0.1, 0.1, -0.3])
    of_four = resampling_of(PROMPTS[:4], 40_000, rng)
    of_all = resampling_of(PROMPTS, 40_000, rng)
    alone, beside = (set_estimate(9.0, without, cells, resampling).draws.std() for resampling in (of_four, of_all))
    assert beside == pytest.approx(alone, rel=0.15), "that the value is 4 above its leave-one-outs is no spread"


def saturated(key: str, shift: float) -> list[StepScores]:
    """Two models that each draw all that is asked of them, or nothing of it."""
    rng, real = np.random.default_rng(3), photos()
    prompts = 0.01 * rng.normal(size=(N_PROMPTS, SIDE))
    everywhere = np.concatenate([real.held_out.array(names.FEATURES)] * 2)[: len(CELLS)]
    sets = {}
    for step, jitter in ((0, 1e-3), (10, 2e-3)):
        moved = everywhere + jitter * rng.normal(size=everywhere.shape) + shift
        sets[step] = ImageSet(CELLS, {**drawn(rng, prompts, scale=1, shift=0).arrays, names.FEATURES: moved})
    return score_steps(sets, real, {key: METRIC_SPECS[key]}, resampling_of(PROMPTS, 100, rng))


@pytest.mark.parametrize(("shift", "share"), [(0.0, 1.0), (50.0, 0.0)])
def test_where_all_photos_are_covered_or_none_other_pictures_still_might_differ(shift: float, share: float) -> None:
    base, other = saturated("coverage_demo", shift)
    value, difference = other.values["coverage_demo"], other.differences["coverage_demo"]
    assert (base.values["coverage_demo"].value, value.value, difference.value) == (share, share, 0.0)
    assert 0.9 < 1 - (value.interval.hi - value.interval.lo) < 1
    assert 0.0 <= value.interval.lo <= share <= value.interval.hi <= 1.0
    assert difference.interval.lo < 0 < difference.interval.hi
