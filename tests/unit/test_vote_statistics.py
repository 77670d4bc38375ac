"""Statistics of votes against closed forms and worked examples from the literature."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loupe.vote_statistics import (
    bradley_terry,
    is_connected,
    krippendorff_alpha,
    metric_agreement,
    repeat_consistency,
    share,
    strengths,
)
from tests.unit.vote_builder import vote


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_two_players_differ_by_the_log_of_the_odds() -> None:
    one, other = bradley_terry(np.array([[0, 30.0], [10.0, 0]]))
    assert one - other == pytest.approx(math.log(3), rel=1e-9)


def test_strengths_that_made_the_expected_wins_come_out_again() -> None:
    true = np.array([0.0, 0.7, -0.4, 1.3])
    p = 1 / (1 + np.exp(true[None, :] - true[:, None]))
    wins = 50 * (p - np.diag(np.diag(p)))
    found = bradley_terry(np.stack([wins, 2 * wins]))
    assert found == pytest.approx(np.stack([true - true.mean()] * 2), abs=1e-7)


def test_a_tie_is_half_a_win_for_each() -> None:
    votes = [vote(0, 75, "right"), vote(75, 0, "left", prompt="b"), vote(0, 75, "left", prompt="c"),
             vote(0, 75, "tie", prompt="d")]  # fmt: skip
    found = strengths(votes, reference=0, rng=rng())
    assert found.rows[0].step == 75
    assert found.rows[0].log_odds == pytest.approx(math.log(2.5 / 1.5), rel=1e-9)
    assert (found.rows[0].wins, found.rows[0].n) == (2.5, 4)
    assert not found.corrected


def test_who_always_wins_is_strong_but_never_infinitely_and_it_is_said() -> None:
    votes = [vote(75, 0, "left", prompt=f"p{i}") for i in range(4)]
    found = strengths(votes, reference=0, rng=rng())
    best = found.rows[0]
    assert found.corrected
    assert best.log_odds == pytest.approx(math.log(4.5 / 0.5), rel=1e-9)
    assert all(math.isfinite(value) for value in (best.log_odds, best.lo, best.hi))


def test_a_checkpoint_that_no_vote_connects_with_the_base_is_named_and_not_guessed() -> None:
    votes = [vote(75, 0, "left"), vote(150, 225, "left")]
    found = strengths(votes, reference=0, rng=rng())
    assert {row.step for row in found.rows} == {0, 75}
    assert found.unconnected == (150, 225)
    assert strengths([vote(150, 225, "left")], reference=0, rng=rng()).rows == ()


def test_the_interval_holds_the_strength_and_needs_two_prompts() -> None:
    votes = [vote(75, 0, "left" if i % 3 else "right", prompt=f"p{i}") for i in range(30)]
    row = strengths(votes, reference=0, rng=rng()).rows[0]
    assert row.log_odds == pytest.approx(math.log(2), rel=1e-9)
    assert row.lo < row.log_odds < row.hi
    alone = strengths([vote(75, 0, "left"), vote(75, 0, "right")], reference=0, rng=rng()).rows[0]
    assert (alone.lo, alone.hi) == (None, None)


def test_skipped_and_check_questions_do_not_count() -> None:
    votes = [vote(75, 0, "left"), vote(75, 0, "skip"), vote(75, 75, "left", kind="same"),
             vote(75, 0, "right", kind="repeat")]  # fmt: skip
    assert strengths(votes, reference=0, rng=rng()).rows[0].n == 1


def test_connection_goes_both_ways() -> None:
    assert is_connected(np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0.0]]))
    assert not is_connected(np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0.0]]))


def test_krippendorff_alpha_of_the_published_example() -> None:
    """Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section D: nominal, four observers, 0.743."""
    nothing = None
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, nothing, nothing, nothing],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nothing, 3],
        [nothing, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nothing],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nothing],
    ]
    units = [[value for value in unit if value is not nothing] for unit in zip(*observers, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_krippendorff_alpha_at_its_ends() -> None:
    assert krippendorff_alpha([["a", "a"], ["b", "b"], ["a"]]) == 1
    assert krippendorff_alpha([["a", "b"]] * 2) < 0
    assert krippendorff_alpha([["a"], ["b"]]) is None
    assert krippendorff_alpha([["a", "a"]]) is None


def test_a_metric_agrees_where_the_preferred_picture_has_more_of_it() -> None:
    worth = {0: 1.0, 75: 2.0, 150: 2.0}
    votes = [
        vote(0, 75, "right"), vote(75, 0, "left", prompt="b"), vote(0, 75, "left", prompt="c"),
        vote(75, 150, "left", prompt="d"), vote(0, 75, "tie"), vote(0, 225, "left"), vote(75, 75, "left", kind="same"),
    ]  # fmt: skip
    found = metric_agreement(
        votes, lambda v, side: worth.get(v.step_left if side == "left" else v.step_right), rng=rng()
    )
    assert (found.value, found.n) == (2.5 / 4, 4)
    assert metric_agreement([], lambda v, side: 0.0, rng=rng()) is None


def test_the_interval_of_a_share_resamples_whole_clusters() -> None:
    """Ten equal answers within each of two prompts tell no more than one each."""
    many = share([1.0] * 10 + [0.0] * 10, ["a"] * 10 + ["b"] * 10, rng=rng())
    assert (many.value, many.lo, many.hi) == (0.5, 0.0, 1.0)
    assert share([1.0, 0.0], ["a", "a"], rng=rng()).lo is None


def test_repeats_are_compared_by_checkpoint_whatever_the_side() -> None:
    votes = [vote(0, 75, "right"), vote(75, 0, "left", kind="repeat", position=8),
             vote(0, 75, "tie", prompt="b"), vote(0, 75, "left", prompt="b", kind="repeat", position=9)]  # fmt: skip
    assert repeat_consistency(votes) == (1, 2)
