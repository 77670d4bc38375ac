"""Intervals of shares against the published examples, and where all answers are alike."""

from __future__ import annotations

import numpy as np
import pytest

from loupe.metrics.bootstrap import Interval, covering, within
from loupe.metrics.share_intervals import paired_share_interval, wilson_interval


def pairs(both: int, only_a: int, only_b: int, none: int) -> tuple[np.ndarray, np.ndarray]:
    """The answers of a table of pairs."""
    counts = [both, only_a, only_b, none]
    return np.repeat([1.0, 1.0, 0.0, 0.0], counts), np.repeat([1.0, 0.0, 1.0, 0.0], counts)


def test_an_interval_of_a_share_has_width_where_all_answers_are_alike() -> None:
    """10 of 10: from 10 / (10 + 1.96^2) to 1; the textbook's 50 of 100: 0.4038 to 0.5962."""
    assert wilson_interval(1.0, 10) == Interval(pytest.approx(10 / (10 + 1.959964**2), abs=1e-6), 1.0)
    assert wilson_interval(0.0, 10) == Interval(0.0, pytest.approx(1 - wilson_interval(1.0, 10).lo))
    assert wilson_interval(0.5, 100) == Interval(pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert covering(Interval(0.0, 0.5), Interval(-1.0, 0.4)) == Interval(-1.0, 0.5)
    assert within(Interval(-0.1, 0.9), 0.0, 1.0) == Interval(0.0, 0.9)


@pytest.mark.parametrize(("table", "lo", "hi"), [((36, 12, 2, 0), 0.0569, 0.3404), ((18, 12, 2, 18), 0.0562, 0.3290)])
def test_the_paired_interval_is_newcombes(table: tuple[int, int, int, int], lo: float, hi: float) -> None:
    """Two of the examples of his paper on paired data, method 10."""
    assert paired_share_interval(*pairs(*table)) == Interval(pytest.approx(lo, abs=5e-5), pytest.approx(hi, abs=5e-5))


def test_where_all_answers_are_alike_it_adds_the_squares_of_wilsons() -> None:
    """56 pass and 56 fail: 1 - sqrt(2) (1 - 56 / (56 + 1.96^2)); two that pass everywhere: that much on either side."""
    short = 1 - wilson_interval(1.0, 56).lo
    assert paired_share_interval(*pairs(0, 56, 0, 0)) == Interval(pytest.approx(1 - short * np.sqrt(2)), 1.0)
    assert paired_share_interval(*pairs(0, 0, 56, 0)) == Interval(-1.0, pytest.approx(short * np.sqrt(2) - 1))
    assert paired_share_interval(*pairs(56, 0, 0, 0)) == Interval(pytest.approx(-short), pytest.approx(short))


def test_exchanging_the_sides_or_the_answers_turns_the_interval_round() -> None:
    found = paired_share_interval(*pairs(20, 9, 3, 8))
    for table in ((20, 3, 9, 8), (8, 3, 9, 20)):
        turned = paired_share_interval(*pairs(*table))
        assert (turned.lo, turned.hi) == (pytest.approx(-found.hi), pytest.approx(-found.lo))


def test_what_pairs_have_in_common_narrows_it() -> None:
    alike, opposed = (paired_share_interval(*pairs(*t)) for t in ((30, 2, 2, 30), (2, 30, 30, 2)))
    assert alike.hi - alike.lo < 0.5 * (opposed.hi - opposed.lo)


def test_it_holds_the_difference_of_rare_failures_as_often_as_claimed() -> None:
    """64 pictures that pass in 98 % and in 95 %: resamples of two shares of 1 would claim that they are equal."""
    rng, difference = np.random.default_rng(0), 0.98 - 0.95
    answers = ((rng.uniform(size=(2, 64)) < [[0.98], [0.95]]).astype(np.float64) for _ in range(2000))
    assert np.mean([paired_share_interval(*pair).contains(difference) for pair in answers]) >= 0.94
