"""The recommendation: gates, ties, the earliest of the best, and the courage to name no winner."""

from __future__ import annotations

import numpy as np

from loupe.metrics.selection import StepEvidence, compare_checkpoints, selection_record
from loupe.metrics.selection_text import Setting, selection_reason
from loupe.records import ExtractorInfo, Null

RNG_BASE = np.random.default_rng(0).normal(0, 1, 1000)
BASE_DISTANCE, BASE_TEXT = 50.0, 20.0


def evidence(
    step: int,
    distance: float | None,
    *,
    text_gain: float = 1.0,
    background: float | None = 0.95,
    invalid: int = 0,
    noise: float = 0.5,
    shared: float = 1.0,
) -> StepEvidence:
    """Draws around the value: `noise` of its own, `shared` with all others (which pairing removes)."""
    own = np.random.default_rng(step).normal(0, noise, 1000)
    draws = (BASE_DISTANCE if distance is None else distance) + shared * RNG_BASE + own
    return StepEvidence(
        step=step, n_used=64, invalid_count=invalid, background_ok=background, distance=distance,
        text_score=BASE_TEXT + text_gain, distance_draws=draws,
        distance_gain=draws - (BASE_DISTANCE + shared * RNG_BASE),
        text_gain=text_gain + np.random.default_rng(step + 1).normal(0, 0.2, 1000),
    )  # fmt: skip


BASE = evidence(0, BASE_DISTANCE, text_gain=0.0, background=0.1, noise=0.0)


def compare(*checkpoints: StepEvidence):
    return compare_checkpoints(checkpoints, text_key="clip_demo", min_background_ok=0.9, max_invalid=0)


def reason(comparison, *checkpoints: StepEvidence) -> str:
    info = {"kind": "domain_trained", "sha256": "0" * 64, "resize": "none"}
    setting = Setting(
        distance_key="fd_demo", text_key="clip_demo", n_prompts=16, n_real=68,
        distance_extractor=ExtractorInfo(name="demo-classifier", role="inception", **info),
        text_extractor=ExtractorInfo(name="demo-clip", role="clip", **info),
        null=Null(mean=5.2, lo=4.8, hi=5.9, n_a=64, n_b=68, n_draws=50),
    )  # fmt: skip
    return selection_reason(comparison, BASE, checkpoints, setting)


def test_the_earliest_that_cannot_be_told_from_the_best_is_chosen() -> None:
    steps = (evidence(75, 20.0), evidence(150, 10.2), evidence(225, 10.0), evidence(300, 10.1))
    found = compare(*steps)
    assert found.verdict == "selected"
    assert (found.chosen.step, found.best.step, found.tied) == (150, 225, (150, 225, 300))
    text = reason(found, *steps)
    assert "step-000150 is recommended: it is the earliest of 3 checkpoints (steps 150, 225, 300)" in text
    assert "64 pictures of 16 prompts against 68 real val photos" in text
    assert "demo-classifier and demo-clip" in text
    assert "(64 against 68) give fd_demo 5.2 [4.8, 5.9]" in text
    assert "The lowest value is 10 at step-000225" in text


def test_pairing_tells_checkpoints_apart_that_overlap_unpaired() -> None:
    steps = (evidence(75, 12.0, noise=0.1, shared=5.0), evidence(150, 10.0, noise=0.1, shared=5.0))
    assert np.percentile(steps[1].distance_draws, 97.5) > np.percentile(steps[0].distance_draws, 2.5)
    assert compare(*steps).tied == (150,)


def test_gates_come_before_the_distance() -> None:
    steps = (
        evidence(75, 5.0, invalid=1),
        evidence(150, 6.0, background=0.5),
        evidence(225, 7.0, text_gain=-3.0),
        evidence(300, 20.0),
    )
    found = compare(*steps)
    assert (found.verdict, found.chosen.step) == ("selected", 300)
    assert found.gates_failed == {
        75: "1 invalid pictures, allowed 0",
        150: "background_ok 0.5, required 0.9",
        225: "clip_demo below the base model's",
    }
    assert "Left out by the gates: step-000075 (1 invalid pictures" in reason(found, *steps)
    record = selection_record(found, "because", {step.step: f"step-{step.step:06d}" for step in steps})
    assert set(record.gates_failed) == {"step-000075", "step-000150", "step-000225"}


def test_no_winner_when_nothing_passes_the_gates() -> None:
    steps = (evidence(75, 9.0, background=0.2), evidence(150, 8.0, background=0.3))
    found = compare(*steps)
    assert (found.verdict, found.chosen.step, found.best, found.tied) == ("no clear winner", 150, None, ())
    assert "no checkpoint passes the gates" in reason(found, *steps)


def test_no_winner_when_nothing_can_be_told_from_base() -> None:
    steps = (evidence(75, BASE_DISTANCE + 0.1), evidence(150, BASE_DISTANCE - 0.1))
    found = compare(*steps)
    assert (found.verdict, found.chosen.step) == ("no clear winner", 75)
    assert "none can be told from the base model by fd_demo" in reason(found, *steps)


def test_a_tie_with_the_best_is_not_enough_one_must_also_beat_base() -> None:
    """An early checkpoint with wide draws may tie with the best while it cannot be told from base."""
    wide, good = evidence(75, 48.0, noise=40.0), evidence(150, 10.0)
    found = compare(wide, good)
    assert (found.verdict, found.chosen.step) == ("selected", 150)


def test_worse_than_base_is_never_a_winner() -> None:
    found = compare(evidence(75, 80.0), evidence(150, 90.0))
    assert found.verdict == "no clear winner"


def test_equal_checkpoints_seldom_win_against_base_and_uncorrected_claims_would_more_often() -> None:
    rng = np.random.default_rng(5)
    wins = any_interval = 0
    for _ in range(200):
        steps = []
        for step in range(1, 8):
            error = rng.normal(0, 1)
            gain = error + rng.normal(0, 1, 400)
            steps.append(
                StepEvidence(
                    step=step,
                    n_used=8,
                    invalid_count=0,
                    background_ok=1.0,
                    distance=50 + error,
                    text_score=20.0,
                    distance_draws=50 + gain,
                    distance_gain=gain,
                    text_gain=rng.normal(0, 1, 400),
                )
            )
        wins += compare(*steps).verdict == "selected"
        any_interval += any(np.percentile(s.distance_gain, 97.5) < 0 for s in steps)
    assert wins / 200 <= 0.08
    assert any_interval > 2 * wins


def test_without_intervals_there_is_no_claim() -> None:
    none = np.zeros(0)
    alone = StepEvidence(
        step=75, n_used=4, invalid_count=0, background_ok=1.0, distance=1.0, text_score=30.0, distance_draws=none,
        distance_gain=none, text_gain=none,
    )  # fmt: skip
    found = compare(alone)
    assert (found.verdict, found.chosen.step) == ("no clear winner", 75)
    assert "step-000075" in reason(found, alone)


def test_no_scores_at_all_still_name_a_checkpoint() -> None:
    none = np.zeros(0)
    empty = [
        StepEvidence(
            step=step, n_used=0, invalid_count=64, background_ok=None, distance=None, text_score=None,
            distance_draws=none, distance_gain=none, text_gain=none,
        )
        for step in (75, 150)
    ]  # fmt: skip
    found = compare(*empty)
    assert (found.verdict, found.chosen.step) == ("no clear winner", 150)
    assert "nan" not in reason(found, *empty).lower()


def test_too_few_draws_for_the_correction_are_said() -> None:
    steps = [evidence(step, 10.0) for step in range(1, 40)]
    found = compare(*steps)
    assert found.verdict == "no clear winner"
    assert "raise evaluate.bootstrap_draws" in reason(found, *steps)
