"""Simulated runs of one model: intervals and differences hold the truth about as often as they claim.

A picture is its prompt's point in feature space, moved by its seed; a run draws prompts and seeds. All scores come from
the same functions as in a stage.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from loupe.metric_specs import METRIC_SPECS
from loupe.metrics import image_set as names
from loupe.metrics.bootstrap import COVERAGE_PERCENT, expansion, percentile_interval, sign_p_value
from loupe.metrics.estimates import Estimate, mean_difference, mean_estimate, resampling_of
from loupe.metrics.image_set import ImageSet, RealPhotos
from loupe.metrics.scoring import StepScores, score_steps

N_PROMPTS, SEEDS, N_RUNS, N_DRAWS = 32, 4, 80, 120
PROMPTS = tuple(f"p{i}" for i in range(N_PROMPTS))
CELLS = tuple((prompt, index) for prompt in PROMPTS for index in range(SEEDS))
KEYS = (
    "fd_demo", "kid_demo", "cmmd_demo", "recall_demo", "coverage_demo", "precision_demo", "clip_demo", "clip_gap_demo",
    "colour_share", "colour_ratio", "background_ok", "diversity_ratio_demo", "vendi_demo", "is_demo",
)  # fmt: skip
SPECS = {key: METRIC_SPECS[key] for key in KEYS}
OWN_INTERVAL = (
    "fd_demo", "recall_demo", "coverage_demo", "kid_demo", "cmmd_demo", "clip_demo", "clip_gap_demo", "colour_share",
    "background_ok", "is_demo", "vendi_demo",
)  # fmt: skip
TO_HOLD = COVERAGE_PERCENT / 100


def around(rng: np.random.Generator, centres: np.ndarray, spread: float) -> np.ndarray:
    """Each row of `centres` SEEDS times, moved by chance."""
    return np.repeat(centres, SEEDS, axis=0) + spread * rng.normal(size=(N_PROMPTS * SEEDS, centres.shape[1]))


def base_model(rng: np.random.Generator, prompts: Mapping[str, np.ndarray]) -> ImageSet:
    """What one model draws for these prompts with new seeds."""
    n = len(CELLS)
    shares = np.zeros((n, 2))
    shares[:, 0] = np.clip(np.repeat(prompts["colour"], SEEDS) + 0.1 * rng.normal(size=n), 0, 1)
    return ImageSet(
        cells=CELLS,
        arrays={
            names.FEATURES: around(rng, prompts["features"], 0.7),
            names.LOGITS: around(rng, prompts["logits"], 0.7),
            names.CLIP_IMAGE: around(rng, prompts["text"] + 2, 1.0),
            names.CLIP_TEXT: np.repeat(prompts["text"], SEEDS, axis=0),
            names.COLOUR_SHARES: shares,
            names.ASKED_FAMILY: np.zeros(n, dtype=np.int64),
            names.FOREGROUND_SHARE: np.full(n, 0.3),
            names.BACKGROUND_WHITE_SHARE: 0.99 + 0.005 * around(rng, prompts["white"][:, None], 1.0)[:, 0],
        },
    )


def new_prompts(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw what is asked for."""
    return {
        "features": 0.6 + 0.7 * rng.normal(size=(N_PROMPTS, 6)),
        "logits": 1.5 * rng.normal(size=(N_PROMPTS, 5)),
        "text": rng.normal(size=(N_PROMPTS, 8)),
        "colour": rng.uniform(0.3, 0.7, N_PROMPTS),
        "white": rng.normal(size=N_PROMPTS),
    }


def real_photos() -> RealPhotos:
    rng = np.random.default_rng(0)
    photos = base_model(rng, new_prompts(rng))
    arrays = {**photos.arrays, names.FEATURES: photos.array(names.FEATURES) - 0.3}
    return RealPhotos(train=ImageSet(CELLS, arrays), held_out=ImageSet(CELLS, arrays))


REAL = real_photos()


@pytest.fixture(scope="module")
def runs() -> list[list[StepScores]]:
    """Base, and base again with the same prompts and new seeds, as if it were a checkpoint; new prompts every run."""
    rng, found = np.random.default_rng(1), []
    for _ in range(N_RUNS):
        prompts = new_prompts(rng)
        sets = {0: base_model(rng, prompts), 10: base_model(rng, prompts)}
        found.append(score_steps(sets, REAL, SPECS, resampling_of(PROMPTS, N_DRAWS, rng)))
    return found


def least_expected(n: int) -> float:
    """Four standard errors of a share below what is claimed, and what percentile intervals of few prompts lack."""
    return TO_HOLD - 0.03 - 4 * np.sqrt(TO_HOLD * (1 - TO_HOLD) / n)


@pytest.mark.parametrize("key", KEYS)
def test_base_with_new_seeds_differs_from_base_by_nothing_as_often_as_claimed(
    runs: list[list[StepScores]], key: str
) -> None:
    held = np.mean([scores[1].differences[key].interval.contains(0) for scores in runs])
    assert held >= least_expected(N_RUNS)


@pytest.mark.parametrize("key", OWN_INTERVAL)
def test_the_long_run_score_of_base_lies_inside_its_interval_as_often_as_claimed(
    runs: list[list[StepScores]], key: str
) -> None:
    """The long run is the mean over all runs, each with its own prompts and seeds."""
    truth = np.mean([scores.values[key].value for run in runs for scores in run])
    intervals = [scores.values[key].interval for run in runs for scores in run]
    held = np.mean([interval.contains(truth) for interval in intervals])
    assert held >= least_expected(2 * N_RUNS)


@pytest.mark.parametrize("key", ["kid_demo", "clip_demo", "colour_share"])
def test_an_interval_is_no_wider_than_its_claim_needs(runs: list[list[StepScores]], key: str) -> None:
    estimates = [scores.values[key] for run in runs for scores in run]
    truth = np.mean([estimate.value for estimate in estimates])
    half = [
        truth - 0.5 * (e.value - e.interval.lo) <= e.value <= truth + 0.5 * (e.interval.hi - e.value) for e in estimates
    ]
    assert np.mean(half) < TO_HOLD - 0.1, "half of it would hold the truth less often than claimed"


def test_new_seeds_alone_stay_inside_the_interval_of_base(runs: list[list[StepScores]]) -> None:
    """With the same prompts only the seeds' chance is left, of which the interval holds more than enough."""
    for key in OWN_INTERVAL:
        again = [scores[0].values[key].interval.contains(scores[1].values[key].value) for scores in runs]
        assert np.mean(again) >= least_expected(N_RUNS), key


# --- as few prompts as the defaults have -----------------------------------------------------------------------------

FEW, N_FEW_RUNS, GAIN = 16, 2000, 0.5
FEW_CELLS = tuple((f"p{i}", index) for i in range(FEW) for index in range(SEEDS))


def few_prompts(rng: np.random.Generator, *, images_are_prompts: bool = False) -> Estimate:
    """A gain of 0.5 on the same seeds; deviations: prompt 2, prompt x checkpoint 1, seed 1, the rest 1.2."""
    shared = 2 * rng.normal(size=FEW)[:, None] + rng.normal(size=(FEW, SEEDS))
    base, values = shared + rng.normal(size=(2, FEW, 1)) + 1.2 * rng.normal(size=(2, FEW, SEEDS))
    values += GAIN
    cells = [(f"{p}/{i}", 0) for p, i in FEW_CELLS] if images_are_prompts else FEW_CELLS
    resampling = resampling_of(tuple(dict.fromkeys(p for p, _ in cells)), 400, rng)
    a, b = (mean_estimate(v.ravel(), cells, METRIC_SPECS["clip_demo"], resampling) for v in (values, base))
    return mean_difference(a, b, METRIC_SPECS["clip_demo"], resampling)


def test_intervals_and_p_values_of_16_prompts_hold_what_they_claim() -> None:
    """One standard error of the share is 0.005."""
    rng = np.random.default_rng(2)
    found = [few_prompts(rng) for _ in range(N_FEW_RUNS)]
    held = np.mean([e.interval.contains(GAIN) for e in found])
    assert 0.94 <= held <= 0.965
    wrong = np.mean([sign_p_value(e.draws - GAIN) < 1 - TO_HOLD for e in found])
    assert wrong <= 0.06
    as_drawn = [e.value + (e.draws - e.value) / expansion(["any"] * FEW) for e in found]
    assert np.mean([percentile_interval(draws).contains(GAIN) for draws in as_drawn]) < held - 0.015


def test_intervals_from_resampled_pictures_would_be_too_narrow() -> None:
    """A gain that differs from prompt to prompt is shared by the pictures of one."""
    rng = np.random.default_rng(3)
    found = [few_prompts(rng, images_are_prompts=True) for _ in range(N_FEW_RUNS // 4)]
    assert np.mean([e.interval.contains(GAIN) for e in found]) < 0.9


@pytest.mark.parametrize("key", ["kid_demo", "cmmd_demo", "is_demo", "vendi_demo"])
def test_a_score_of_a_set_of_16_prompts_holds_its_long_run_mean(key: str) -> None:
    """At this number of pictures: Inception Score and Vendi of more are higher, of photos as well."""
    rng, of_resamples, kept, found = np.random.default_rng(4), np.random.default_rng(5), PROMPTS[:FEW], []
    for _ in range(400):
        images = base_model(rng, new_prompts(rng)).rows(range(FEW * SEEDS))
        found += score_steps({0: images}, REAL, {key: SPECS[key]}, resampling_of(kept, 300, of_resamples))
    truth = np.mean([scores.values[key].value for scores in found])
    assert np.mean([scores.values[key].interval.contains(truth) for scores in found]) >= 0.92
