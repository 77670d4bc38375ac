"""How a recommendation, numbers and times are said to people."""

from __future__ import annotations

from loupe.wording import decision_and_why, duration, interval, number

REASON = (
    "step-000200 is recommended: it is the earliest of 2 checkpoints (steps 200, 400) that cannot be told from the "
    "best. Against the base model: cmmd_demo (lower is better) 0.17 against 2.4 (-2.2 [-3.0, -1.5]); together p = 0.01 "
    "after Holm's correction. Left out by the gates: step-000100 (background_ok 0.859, required 0.9)."
)


def test_the_decision_stands_first_and_the_evidence_behind_it() -> None:
    decision, why = decision_and_why(REASON)
    assert decision.startswith("Step 200 is recommended: it is the earliest of 2")
    assert len(why) == 2
    assert why[1] == "Left out by the gates: step 100 (White background 0.859, required 0.9)."


def test_metrics_are_called_as_pages_call_them_and_minus_signs_are_true_ones() -> None:
    _, why = decision_and_why(REASON)
    assert why[0].startswith(
        "Against the base model: CMMD × 1000 (demo) (lower is better) 0.17 against 2.4 (−2.2 [−3.0, −1.5])"
    )


def test_what_is_no_metric_is_left_as_it_is_and_nothing_is_lost() -> None:
    decision, why = decision_and_why("step-000000 wins. Raise evaluate.bootstrap_draws. See my_own_word.")
    assert (decision, why) == ("Base model wins.", ("Raise evaluate.bootstrap_draws.", "See my_own_word."))
    assert decision_and_why("One sentence") == ("One sentence", ())


def test_numbers_have_three_digits_and_a_true_minus() -> None:
    assert [number(v) for v in (0.12345, -1.234, 12.34, 1234.5)] == ["0.123", "−1.23", "12.3", "1234"]
    assert number(0.859, unit="share") == "86 %"
    assert interval(-0.5, 0.25, signed=True) == "−0.500 to +0.250"
    assert [duration(s) for s in (45, 600, 7800)] == ["45 s", "10 min", "2 h 10 min"]
