"""Resampling by prompt, intervals that cover as often as they claim, and Holm's correction."""

from __future__ import annotations

import numpy as np
import pytest

from loupe.metrics.bootstrap import (
    Interval,
    draws_needed,
    expansion,
    holm_adjusted,
    mean_resamples,
    percentile_interval,
    resample_prompts,
    sign_p_value,
    strata_of,
    weights_per_image,
    widened,
)


def test_images_of_one_prompt_are_taken_together() -> None:
    counts = weights_per_image(np.array([[2, 0, 1]]), ["a", "b", "c"], ["a", "a", "b", "c", "c"])
    assert counts.tolist() == [[2, 2, 0, 1, 1]]


@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        (["Red", None, "Red", "Red", None, None], ["Red", "none", "Red", "Red", "none", "none"]),
        (["Red", "Blue", "Red", "Red", "Blue", None], ["Red", "rest", "Red", "Red", "rest", "rest"]),
        (["Red", "Blue", "Red", "Red", "Blue"], ["Red"] * 5),
        (["Red", "Red", "Blue", "Blue", None], ["rest"] * 5),
        (["Red", "Red", "Red", "", None, ""], ["Red", "Red", "Red", "none", "none", "none"]),
        (["no colour"] * 3 + [None] * 3, ["Red"] * 3 + ["none"] * 3),
        (["Red"], ["rest"]),
        ([], []),
    ],
)
def test_colours_of_three_prompts_are_strata_and_the_others_one(colours: list[str | None], expected: list[str]) -> None:
    found = strata_of(colours)
    assert [found.index(stratum) for stratum in found] == [expected.index(stratum) for stratum in expected]


def test_every_resample_has_as_much_of_each_stratum_as_there_is() -> None:
    """Of 7 prompts 6 are drawn, and each weighs 7 / 6."""
    strata = ["a"] * 7 + ["b"] * 3 + ["alone"]
    weights = resample_prompts(strata, 50, np.random.default_rng(0))
    assert weights[:, :7].sum(axis=1) == pytest.approx(7)
    assert weights[:, 7:10].sum(axis=1) == pytest.approx(3)
    assert (weights[:, 10] == 1).all()
    drawn = weights[:, :7] * 6 / 7
    assert drawn == pytest.approx(drawn.round())
    assert len(np.unique(drawn.round())) > 2
    assert (weights == resample_prompts(strata, 50, np.random.default_rng(0))).all()


def test_means_of_resamples_vary_as_those_of_stratified_samples() -> None:
    """The variance of the mean is the sum over strata of (n / N)^2 s^2 / n, s^2 with n - 1 below."""
    rng = np.random.default_rng(3)
    sizes = {"a": 3, "b": 5, "c": 8}
    values = np.concatenate([10 * place + rng.normal(size=n) for place, n in enumerate(sizes.values())])
    strata = [stratum for stratum, n in sizes.items() for _ in range(n)]
    means = mean_resamples(values, resample_prompts(strata, 200_000, rng))
    parts = np.split(values, [3, 8])
    expected = sum(len(part) * part.var(ddof=1) for part in parts) / len(values) ** 2
    assert means.var() == pytest.approx(expected, rel=0.02)
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)


def test_means_skip_images_without_a_value() -> None:
    values = np.array([1.0, np.nan, 3.0])
    counts = np.array([[1, 1, 1], [0, 5, 2], [0, 3, 0]])
    means = mean_resamples(values, counts)
    assert means[:2].tolist() == [2.0, 3.0]
    assert np.isnan(means[2])


def test_interval_ignores_draws_without_a_value_and_needs_two() -> None:
    assert percentile_interval(np.array([np.nan, 1.0])) is None
    interval = percentile_interval(np.array([np.nan, *np.linspace(0, 1, 1001)]))
    assert interval == Interval(pytest.approx(0.025), pytest.approx(0.975))


def test_draws_are_widened_to_students_interval_about_their_own_mean() -> None:
    """16 prompts: t = 2.1314 with 15 degrees of freedom; 15 of three strata: 2.4469 with half of 12; against 1.96."""
    assert expansion(["any"] * 16) == pytest.approx(2.131450 / 1.959964, rel=1e-6)
    assert expansion(["a"] * 5 + ["b"] * 5 + ["c"] * 5) == pytest.approx(2.446912 / 1.959964, rel=1e-6)
    assert expansion(["a", "b"]) == pytest.approx(12.706205 / 1.959964, rel=1e-6), "one degree at least"
    assert expansion(["any"] * 10_000) == pytest.approx(1, abs=1e-3)
    draws = np.array([1.0, np.nan, 2.0, 6.0])
    wide = widened(draws, ["any"] * 16)
    assert np.isnan(wide[1])
    assert np.delete(wide, 1) == pytest.approx(3 + expansion(["any"] * 16) * np.array([-2.0, -1.0, 3.0]))
    assert widened(np.zeros(5), ["any"] * 16).tolist() == [0.0] * 5


def test_the_widened_interval_of_a_mean_is_students() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=12)
    counts = resample_prompts(["any"] * 12, 40_000, rng)
    interval = percentile_interval(widened(mean_resamples(values, counts), ["any"] * 12))
    half = 2.200985 * values.std(ddof=1) / np.sqrt(12)
    assert interval.hi - interval.lo == pytest.approx(2 * half, rel=0.02)


def test_a_p_value_is_small_just_where_the_interval_leaves_0_out() -> None:
    """A thousandth of the draws lies between: the p-value counts the observed sample too."""
    rng = np.random.default_rng(5)
    for shift in np.linspace(0, 1, 41):
        draws = widened(shift + 0.25 * rng.normal(size=2000), ["any"] * 16)
        without_0 = [np.percentile(draws, tail) > 0 for tail in (2.4, 2.6)]
        assert without_0[0] <= (sign_p_value(draws) < 0.05) <= without_0[1]
        assert without_0[0] <= (not percentile_interval(draws).contains(0)) <= without_0[1]


def covered(rng: np.random.Generator, *, by_prompt: bool) -> bool:
    """One experiment with a true gain of 0.5: prompt effects differ, images of a prompt are alike."""
    n_prompts, seeds = 40, 4
    gain = 0.5 + rng.normal(0, 0.6, n_prompts)[:, None] + rng.normal(0, 0.8, (n_prompts, seeds))
    values, names = gain.ravel(), [str(i) for i in range(n_prompts) for _ in range(seeds)]
    units = names if by_prompt else [str(i) for i in range(len(names))]
    prompts = list(dict.fromkeys(units))
    counts = weights_per_image(resample_prompts(["any"] * len(prompts), 200, rng), prompts, units)
    return percentile_interval(mean_resamples(values, counts)).contains(0.5)


def test_prompt_intervals_cover_as_claimed_and_image_intervals_do_not() -> None:
    rng = np.random.default_rng(1)
    by_prompt = np.mean([covered(rng, by_prompt=True) for _ in range(300)])
    by_image = np.mean([covered(rng, by_prompt=False) for _ in range(300)])
    assert 0.90 <= by_prompt <= 0.98
    assert by_image < by_prompt - 0.04


def test_p_value_is_two_sided_and_never_zero() -> None:
    draws = np.linspace(1, 2, 99)
    assert sign_p_value(draws) == pytest.approx(2 / 100)
    assert sign_p_value(-draws) == pytest.approx(2 / 100)
    assert sign_p_value(np.linspace(-1, 1, 99)) == 1.0


def test_holm_steps_down_and_stays_monotone() -> None:
    assert holm_adjusted({1: 0.01, 2: 0.04, 3: 0.03}) == pytest.approx({1: 0.03, 2: 0.06, 3: 0.06})
    assert holm_adjusted({1: 0.9, 2: 0.8}) == pytest.approx({1: 1.0, 2: 1.0})
    assert holm_adjusted({}) == {}


def test_draws_needed_is_the_least_that_can_pass() -> None:
    needed = draws_needed(7, 0.05)
    assert 7 * 2 / (needed + 1) < 0.05 <= 7 * 2 / needed, "a p-value of 0.05 passes nothing"
