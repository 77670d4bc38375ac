"""The recommendation: gates, front, ties, the earliest of the best, and the courage to name no winner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loupe.evaluation_records import ExtractorInfo, Null
from loupe.metrics.bootstrap import draws_needed
from loupe.metrics.selection import Comparison, compare_checkpoints, pareto_front
from loupe.metrics.selection_evidence import Gain, Gates, StepEvidence, step_evidence
from loupe.metrics.selection_text import Setting, selection_reason, selection_record

SHARED = np.random.default_rng(0).normal(0, 1, 1000)
KEYS = {
    "distance": "cmmd_demo", "clip_gap": "clip_gap_demo", "colour": "colour_ratio", "diversity": "diversity_ratio_demo"
}  # fmt: skip
EQUAL = dict.fromkeys(KEYS, 1.0)
GATES = Gates(
    text_key="clip_demo", min_background_ok=0.9, min_centred_ok=0.8, max_invalid=0, max_text_loss=1.0,
    memorisation_level=0.01, n_held_out=68,
)  # fmt: skip
NO_DRAWS = np.zeros(0)


def evidence(
    step: int,
    distance: float,
    *,
    others: float = 0.0,
    text_gain: float = 1.0,
    background: float | None = 0.95,
    centred: float | None = 0.95,
    memorised: float | None = 0.0,
    invalid: int = 0,
    noise: float = 0.5,
    shared: float = 1.0,
) -> StepEvidence:
    """Gains around `distance` and `others`: `noise` of its own, `shared` with all checkpoints (pairing removes it)."""
    rng = np.random.default_rng(step)
    gains = {
        name: Gain(value, value + shared * SHARED + rng.normal(0, noise, 1000))
        for name, value in (("distance", distance), ("clip_gap", others), ("colour", others), ("diversity", others))
    }
    return StepEvidence(
        step=step, n_used=64, invalid_count=invalid, background_ok=background, centred_ok=centred, memorised=memorised,
        gains=gains, text_gain=Gain(text_gain, text_gain + rng.normal(0, 0.2, 1000)),
    )  # fmt: skip


def compare(*checkpoints: StepEvidence, weights: dict[str, float] | None = None) -> Comparison:
    return compare_checkpoints(checkpoints, keys=KEYS, weights=weights or EQUAL, gates=GATES)


def only_distance(*checkpoints: StepEvidence) -> Comparison:
    return compare(*checkpoints, weights={**dict.fromkeys(KEYS, 0.0), "distance": 1.0})


def reason(comparison: Comparison, **difference: float) -> str:
    info = {"kind": "domain_trained", "sha256": "0" * 64, "resize": "none"}
    row = {key: 20.0 + i for i, key in enumerate(KEYS.values())} | difference
    setting = Setting(
        rows={0: dict.fromkeys(KEYS.values(), 10.0), comparison.chosen.step: row},
        distance_key="cmmd_demo", n_prompts=16, n_real=68,
        extractors=(
            ExtractorInfo(name="demo-classifier", role="inception", **info),
            ExtractorInfo(name="demo-clip", role="clip", **info),
        ),
        null=Null(mean=5.2, lo=4.8, hi=5.9, n_a=64, n_b=68, n_draws=50),
    )  # fmt: skip
    return selection_reason(comparison, setting)


def test_the_earliest_that_cannot_be_told_from_the_best_is_chosen() -> None:
    found = only_distance(evidence(75, 20.0), evidence(150, 30.1), evidence(225, 30.0), evidence(300, 30.2))
    assert found.verdict == "selected"
    assert found.best.step == 300
    assert found.front == found.tied == (150, 225, 300), "0.2 is nothing beside the noise; 10 is"
    assert found.chosen.step == 150
    assert "is recommended: it is the earliest of 3 checkpoints" in reason(found)
    assert "Clearly behind the best in merit: step-000075" in reason(found)
    several = compare(evidence(75, 5.0, others=5.0), evidence(150, 30.0, others=30.1), evidence(225, 30.1, others=30.0))
    assert several.front == several.tied == (150, 225)
    assert several.chosen.step == 150
    standings = selection_record(several, "because").standings
    assert standings["step-000075"].p_best < 0.05 <= standings["step-000225"].p_best
    assert (several.best.step, standings["step-000150"].p_best) == (150, None), "it is not compared with itself"
    text = reason(several)
    assert "step-000150 is recommended: it is the earliest of 2 checkpoints (steps 150, 225)" in text
    assert "64 pictures of 16 prompts against 68 real val photos" in text
    assert "demo-classifier and demo-clip" in text
    assert "(64 against 68) give cmmd_demo 5.2 [4.8, 5.9]" in text
    assert "cmmd_demo (lower is better) 20 against 10 (no paired difference)" in text, "an absent difference is not 0"
    assert "Clearly behind the best in merit: step-000075" in text


def test_one_that_is_recommended_alone_says_what_became_of_the_others() -> None:
    alone = compare(evidence(75, 30.0, centred=0.1), evidence(150, 20.0))
    assert (alone.verdict, alone.chosen.step) == ("selected", 150)
    assert "step-000150 is recommended: it passes the gates, and no other checkpoint does." in reason(alone)
    ahead = only_distance(evidence(75, 5.0), evidence(150, 30.0))
    assert (ahead.verdict, ahead.tied) == ("selected", (150,))
    said = "it passes the gates, and every other one that passes them is clearly worse in something or not clearly"
    assert said in reason(ahead)


def test_a_gain_that_no_resample_has_counts_and_claims_nothing() -> None:
    """A kernel distance of two prompts: there is a value, and no interval of it."""
    steps = [evidence(75, 5.0), evidence(150, 50.0)]
    steps = [
        replace(c, gains={**c.gains, "distance": replace(c.gains["distance"], draws=np.full(1000, np.nan))})
        for c in steps
    ]
    found = only_distance(*steps)
    assert found.verdict == "no clear winner"
    assert set(found.merit_p.values()) == {1.0}
    assert (found.merits[75].value, found.merits[150].value) == (5.0, 50.0)


def test_the_front_keeps_whoever_is_best_in_something() -> None:
    steps = [evidence(75, 9.0, others=1.0), evidence(150, 5.0, others=5.0), evidence(225, 2.0, others=2.0)]
    assert [c.step for c in pareto_front(steps, list(KEYS))] == [75, 150]
    near = evidence(225, 4.8, others=4.8)
    assert [c.step for c in pareto_front([*steps[:2], near], list(KEYS))] == [75, 150, 225], "0.2 may be chance"
    points = [bare(75, gain=1.0), bare(150, gain=1.1)]
    assert [c.step for c in pareto_front(points, list(KEYS))] == [150], "without draws there is only the estimate"
    twins = [evidence(75, 5.0, others=5.0), evidence(150, 5.0, others=5.0)]
    assert [c.step for c in pareto_front(twins, list(KEYS))] == [75, 150], "equals do not beat each other"


def test_weights_decide_between_members_of_the_front() -> None:
    near, diverse = evidence(75, 40.0, others=20.0), evidence(150, 20.0, others=40.0)
    assert compare(near, diverse).chosen.step == 150
    assert compare(near, diverse, weights={**EQUAL, "distance": 10.0}).chosen.step == 75


def test_a_criterion_that_a_checkpoint_lacks_is_left_out_for_all() -> None:
    whole, part = evidence(75, 9.0, others=9.0), evidence(150, 10.0, others=10.0)
    part = StepEvidence(
        **{**{n: getattr(part, n) for n in part.__slots__}, "gains": dict(list(part.gains.items())[:2])}
    )
    assert set(compare(whole, part).criteria) == {"distance", "clip_gap"}


def test_merit_counts_gains_in_units_of_their_uncertainty() -> None:
    """A gain of 10 that every resample confirms weighs the same whatever its unit."""
    found = compare(evidence(75, 10.0, others=10.0), evidence(150, 20.0, others=20.0))
    scaled = [
        StepEvidence(
            **{
                **{n: getattr(c, n) for n in c.__slots__},
                "gains": {n: Gain(1000 * g.value, 1000 * g.draws) for n, g in c.gains.items()},
            }
        )
        for c in (evidence(75, 10.0, others=10.0), evidence(150, 20.0, others=20.0))
    ]
    again = compare(*scaled)
    for step, merit in found.merits.items():
        assert again.merits[step].value == pytest.approx(merit.value)


def test_pairing_tells_checkpoints_apart_that_overlap_unpaired() -> None:
    steps = [
        evidence(75, 40.0, others=39.0, noise=0.1, shared=5.0), evidence(150, 42.0, others=38.9, noise=0.1, shared=5.0)
    ]  # fmt: skip
    a, b = (compare(*steps).merits[step].draws for step in (75, 150))
    assert np.percentile(a, 97.5) > np.percentile(b, 2.5)
    found = compare(*steps)
    assert found.front == (75, 150)
    assert found.tied == (150,)


@pytest.mark.parametrize(
    ("allowed", "fails"),
    [(1.0, {20, 30}), (2.0, {30}), (None, set())],
)
def test_only_a_clear_loss_of_more_text_than_allowed_fails(allowed: float | None, fails: set[int]) -> None:
    """A loss of 0.9 is clear with this noise, and within what a LoRA may lose; one of 1.1 +- 0.4 is not clear."""
    steps = (
        evidence(10, 90.0, text_gain=-0.9),
        evidence(20, 90.0, text_gain=-1.8),
        evidence(30, 90.0, text_gain=-3.0),
        evidence(40, 90.0, text_gain=-1.1),
    )
    gates = replace(GATES, max_text_loss=allowed)
    found = compare_checkpoints(steps, keys=KEYS, weights=EQUAL, gates=gates)
    assert found.gates_failed.keys() == fails


def test_a_loss_of_text_that_one_of_several_has_by_chance_fails_none() -> None:
    """p = 0.03: clear for one checkpoint, and to be expected of one among six."""
    draws = np.repeat([-2.0, -0.5], [985, 15])
    losers = [replace(evidence(step, 90.0), text_gain=Gain(-2.0, draws)) for step in range(10, 70, 10)]
    assert compare(losers[0]).gates_failed.keys() == {10}
    assert compare(*losers).gates_failed == {}


def test_gates_come_before_the_scores() -> None:
    steps = (
        evidence(10, 95.0, invalid=1),
        evidence(20, 94.0, background=0.5),
        evidence(30, 93.0, text_gain=-3.0),
        evidence(40, 92.0, centred=0.5),
        evidence(50, 91.0, memorised=0.5),
        evidence(300, 20.0),
    )
    found = compare(*steps)
    assert (found.verdict, found.chosen.step) == ("selected", 300)
    assert found.gates_failed == {
        10: "1 invalid pictures, allowed 0",
        20: "background_ok 0.5, required 0.9",
        30: "clip_demo 3 below the base model's, allowed 1",
        40: "centred_ok 0.5, required 0.8",
        50: "0.5 of the pictures near a training photo, by chance at most 0.156",
    }
    assert "Left out by the gates: step-000010 (1 invalid pictures" in reason(found)
    record = selection_record(found, "because")
    assert set(record.gates_failed) == {f"step-0000{step}" for step in (10, 20, 30, 40, 50)}
    assert record.standings["step-000010"].to_best > 0, "it would have won"
    assert all(standing.p_best is None for standing in record.standings.values()), "the best one has no rival left"


def test_no_winner_when_nothing_passes_the_gates() -> None:
    found = compare(evidence(75, 9.0, background=0.2), evidence(150, 12.0, background=0.3))
    assert (found.verdict, found.chosen.step, found.best, found.tied) == ("no clear winner", 150, None, ())
    assert "no checkpoint passes the gates" in reason(found)
    interval = {"cmmd_demo_diff_base": 10.0, "cmmd_demo_diff_base_lo": 8.0, "cmmd_demo_diff_base_hi": 13.0}
    limit = "A difference in cmmd_demo to the base model of less than about 2.5 would not show with this many."
    assert limit in reason(found, **interval)
    assert limit not in reason(found)
    assert "which fails the fewest of them and comes nearest to passing" in reason(found)
    assert selection_record(found, "because").standings["step-000075"].to_best is None


def test_when_all_fail_the_one_that_fails_the_fewest_gates_is_named_and_then_the_highest_merit() -> None:
    worst = evidence(75, 40.0, background=0.5, centred=0.3)
    found = compare(worst, evidence(150, 20.0, centred=0.7), evidence(225, 10.0, centred=0.7))
    assert found.verdict == "no clear winner"
    assert found.chosen.step == 150


def test_of_those_that_fail_as_many_gates_the_nearest_to_passing_is_named() -> None:
    found = compare(
        evidence(75, 20.0, centred=0.3), evidence(150, 10.0, centred=0.75), evidence(225, 15.0, centred=0.7)
    )
    assert (found.verdict, found.chosen.step) == ("no clear winner", 150)


def test_no_winner_when_nothing_can_be_told_from_base() -> None:
    found = compare(evidence(75, 0.1), evidence(150, -0.1))
    assert (found.verdict, found.chosen.step) == ("no clear winner", 75)
    assert "none can be told from the base model" in reason(found)


def test_a_tie_with_the_best_is_not_enough_one_must_also_beat_base() -> None:
    """An early checkpoint with wide draws may tie with the best while it cannot be told from base."""
    wide, good = evidence(75, 2.0, others=2.0, noise=40.0), evidence(150, 30.0, others=30.0)
    found = compare(wide, good)
    assert (found.verdict, found.chosen.step) == ("selected", 150)


def test_worse_than_base_is_never_a_winner() -> None:
    assert compare(evidence(75, -30.0, others=-5.0), evidence(150, -40.0, others=-5.0)).verdict == "no clear winner"


def test_equal_checkpoints_seldom_win_against_base_and_uncorrected_claims_would_more_often() -> None:
    rng = np.random.default_rng(5)
    wins = any_interval = 0
    for _ in range(200):
        steps = []
        for step in range(1, 8):
            errors = rng.normal(0, 1, 4)
            gains = {n: Gain(e, e + rng.normal(0, 1, 400)) for n, e in zip(KEYS, errors, strict=True)}
            steps.append(
                StepEvidence(
                    step=step, n_used=8, invalid_count=0, background_ok=1.0, centred_ok=1.0, memorised=0.0,
                    gains=gains, text_gain=Gain(0.0, rng.normal(0, 1, 400)),
                )
            )  # fmt: skip
        found = compare(*steps)
        wins += found.verdict == "selected"
        any_interval += any(np.percentile(m.draws, 2.5) > 0 for m in found.merits.values())
    assert wins / 200 <= 0.08
    assert any_interval > 2 * wins


def bare(step: int, *, n_used: int = 4, gain: float | None = None) -> StepEvidence:
    return StepEvidence(
        step=step, n_used=n_used, invalid_count=4 - n_used, background_ok=1.0 if n_used else None,
        centred_ok=1.0 if n_used else None, memorised=0.0 if n_used else None,
        gains={} if gain is None else {name: Gain(gain, NO_DRAWS) for name in KEYS}, text_gain=None,
    )  # fmt: skip


def test_without_intervals_there_is_no_claim() -> None:
    found = compare(bare(75, gain=1.0), bare(150, gain=2.0))
    assert (found.verdict, found.chosen.step) == ("no clear winner", 150)
    assert "step-000150" in reason(found)


def test_no_scores_at_all_still_name_a_checkpoint() -> None:
    found = compare(bare(75, n_used=0), bare(150, n_used=0))
    assert (found.verdict, found.chosen.step) == ("no clear winner", 150)
    text = reason(found)
    assert "there is nothing to compare checkpoints by" in text
    assert "nan" not in text.lower()


def test_a_checkpoint_without_pictures_does_not_take_the_criteria_from_the_others() -> None:
    found = compare(evidence(75, 20.0, others=20.0), bare(150, n_used=0))
    assert (found.verdict, found.chosen.step) == ("selected", 75)
    assert set(found.criteria) == set(KEYS)


def test_checkpoints_equal_to_base_in_every_resample_gain_nothing() -> None:
    zero = {name: Gain(0.0, np.zeros(200)) for name in KEYS}
    same = StepEvidence(
        step=75, n_used=4, invalid_count=0, background_ok=1.0, centred_ok=1.0, memorised=0.0, gains=zero,
        text_gain=Gain(0.0, np.zeros(200)),
    )  # fmt: skip
    found = compare(same)
    assert (found.verdict, found.merits[75].value) == ("no clear winner", 0.0)


def equal_checkpoints(rng: np.random.Generator, n: int, criteria: tuple[str, ...]) -> Comparison:
    """Checkpoints of the same merit, far above base; base's own chance is in every gain."""
    base = {name: rng.normal(size=401) for name in KEYS}
    steps = []
    for step in range(1, n + 1):
        gains = {}
        for name in KEYS:
            own = rng.normal(size=401)
            own[1:] += own[0]
            gains[name] = Gain(30 + own[0] + base[name][0], 30 + own[1:] + base[name][0] + base[name][1:])
        steps.append(
            StepEvidence(
                step=step, n_used=64, invalid_count=0, background_ok=1.0, centred_ok=1.0, memorised=0.0, gains=gains,
                text_gain=Gain(1.0, rng.normal(1, 0.2, 400)),
            )
        )  # fmt: skip
    return compare(*steps, weights={name: float(name in criteria) for name in KEYS})


@pytest.mark.parametrize("criteria", [("distance",), tuple(KEYS)])
def test_of_equal_checkpoints_the_earliest_is_recommended_and_few_are_called_worse(criteria: tuple[str, ...]) -> None:
    """By estimates alone the first of six would win once in six, or seven times in ten with four criteria."""
    rng = np.random.default_rng(6)
    found = [equal_checkpoints(rng, 6, criteria) for _ in range(200)]
    assert np.mean([f.chosen.step == 1 for f in found]) >= 0.94
    behind = [sum(f.is_behind(step) for step in f.merits) for f in found]
    uncorrected = [sum(f.to_best(s)[1].hi < 0 for s in f.merits if s != f.best.step) for f in found]
    assert np.mean(np.array(behind) > 0) <= 0.6 * np.mean(np.array(uncorrected) > 0)
    assert all((f.best_p.keys() | {f.best.step}) == f.merits.keys() for f in found)


def test_a_claim_passes_from_the_number_of_draws_on_that_is_said_to_be_needed() -> None:
    def with_draws(n: int) -> Comparison:
        gains = {name: Gain(40.0, np.full(n, 40.0) + np.random.default_rng(3).normal(size=n)) for name in KEYS}
        return compare(
            *(
                StepEvidence(
                    step=step, n_used=64, invalid_count=0, background_ok=1.0, centred_ok=1.0, memorised=0.0,
                    gains=gains, text_gain=Gain(1.0, np.ones(n)),
                )
                for step in range(1, 5)
            )
        )  # fmt: skip

    needed = draws_needed(4, 0.05)
    assert (with_draws(needed).verdict, with_draws(needed).draws_short_of) == ("selected", None)
    assert (with_draws(needed - 1).verdict, with_draws(needed - 1).draws_short_of) == ("no clear winner", needed)


def test_too_few_draws_for_the_correction_are_said() -> None:
    found = compare(*[evidence(step, 40.0, others=40.0) for step in range(1, 40)])
    assert found.verdict == "no clear winner"
    assert "raise evaluate.bootstrap_draws" in reason(found)


def test_evidence_turns_every_gain_so_that_more_is_better() -> None:
    keys = {
        **KEYS, "text": "clip_demo", "background": "background_ok", "centring": "centred_ok",
        "memorisation": "memor_share_demo",
    }  # fmt: skip
    base = {"step": 0.0, "cmmd_demo": 9.0, "clip_gap_demo": 2.0, "colour_ratio": None, "diversity_ratio_demo": 0.7}
    row = {
        "step": 75.0, "n_used": 64.0, "invalid_count": 0.0, "background_ok": 1.0, "centred_ok": 0.9,
        "memor_share_demo": 0.1, "cmmd_demo": 4.0, "cmmd_demo_diff_base": -5.0, "clip_gap_demo": 3.0,
        "clip_gap_demo_diff_base": 1.0, "colour_ratio": 0.5, "diversity_ratio_demo": 1.4,
        "clip_demo_diff_base": 1.5,
    }  # fmt: skip
    draws = {
        "75/cmmd_demo/diff_base": np.array([-4.0, -6.0]), "75/clip_gap_demo/diff_base": np.array([0.5, 1.5]),
        "75/diversity_ratio_demo": np.array([1.2, 0.9]), "0/diversity_ratio_demo": np.array([0.6, 0.8]),
        "75/clip_demo/diff_base": np.array([1.0, 2.0]),
    }  # fmt: skip
    found = step_evidence(row, base, draws, keys)
    assert {name: gain.value for name, gain in found.gains.items()} == pytest.approx(
        {"distance": 5.0, "clip_gap": 1.0, "diversity": 0.3}
    )
    assert found.gains["distance"].draws.tolist() == [4.0, 6.0]
    assert found.gains["diversity"].draws == pytest.approx([0.4, 0.1]), "more than real photos have counts no further"
    assert found.text_gain.value == 1.5
    assert found.text_gain.draws.tolist() == [1.0, 2.0]
    assert (found.background_ok, found.centred_ok, found.memorised) == (1.0, 0.9, 0.1)
