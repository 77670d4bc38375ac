"""Scores of checkpoints: paired, equal for equal pictures, absent with a reason where they cannot be had."""

from __future__ import annotations

import numpy as np
import pytest

from loupe.metric_specs import METRIC_SPECS
from loupe.metrics import image_set as names
from loupe.metrics.bootstrap import Interval
from loupe.metrics.estimates import resampling_of
from loupe.metrics.image_set import ImageSet, RealPhotos
from loupe.metrics.scoring import (
    add_differences_to_best,
    best_steps,
    common_cells,
    draws_by_name,
    score_steps,
)
from tests.unit.metrics.drawn_sets import PROMPTS, REAL, SPECS, images

RESAMPLING = resampling_of(PROMPTS, 200, np.random.default_rng(0))


def test_the_same_pictures_under_two_names_differ_by_exactly_zero() -> None:
    base, again = images(1), images(1)
    _, scores = score_steps({0: base, 10: again}, REAL, SPECS, RESAMPLING)
    for key in SPECS:
        difference = scores.differences[key]
        assert difference.value == 0.0
        assert (difference.interval.lo, difference.interval.hi) == (0.0, 0.0)


def test_every_score_has_an_interval_of_its_own_with_the_value_inside() -> None:
    (base,) = score_steps({0: images(1)}, REAL, SPECS, RESAMPLING)
    for found in base.values.values():
        assert found.interval.lo <= found.value <= found.interval.hi
        assert found.interval.lo < found.interval.hi
    assert set(base.values) == set(SPECS)
    assert base.differences == {}


def test_pictures_that_are_all_the_same_are_one_and_nothing_else() -> None:
    some = images(1)
    same = ImageSet(some.cells, {name: np.repeat(array[:1], len(some), axis=0) for name, array in some.arrays.items()})
    (base,) = score_steps({0: same}, REAL, {key: SPECS[key] for key in ("vendi_demo", "is_demo")}, RESAMPLING)
    for key in ("vendi_demo", "is_demo"):
        interval = base.values[key].interval
        assert (interval.lo, interval.hi) == (pytest.approx(1), pytest.approx(1))


def test_a_mean_is_the_mean_of_its_images_and_lies_in_its_interval() -> None:
    base_images = images(2)
    (base,) = score_steps({0: base_images}, REAL, SPECS, RESAMPLING)
    text, picture = base_images.array(names.CLIP_TEXT), base_images.array(names.CLIP_IMAGE)
    cosines = (text * picture).sum(1) / np.linalg.norm(text, axis=1) / np.linalg.norm(picture, axis=1)
    assert base.values["clip_demo"].value == pytest.approx(100 * cosines.mean(), rel=1e-12)
    assert base.values["clip_demo"].interval.contains(base.values["clip_demo"].value)


def test_only_a_share_gets_the_interval_of_a_share() -> None:
    """A density of 0 everywhere is a measure that happens to be 0: nothing says that it could be 1."""
    far = images(1, shift=50.0)
    specs = {key: METRIC_SPECS[key] for key in ("density_demo", "precision_demo")}
    (scores,) = score_steps({0: far}, REAL, specs, RESAMPLING)
    density, precision = scores.values["density_demo"], scores.values["precision_demo"]
    assert (density.value, density.interval.lo, density.interval.hi) == (0, 0, 0)
    assert (precision.value, precision.interval.lo) == (0, 0)
    assert precision.interval.hi > 0.1


def test_a_clear_gain_shows_in_the_paired_interval() -> None:
    _, scores = score_steps({0: images(3, shift=2.0), 10: images(4)}, REAL, SPECS, RESAMPLING)
    assert scores.differences["fd_demo"].interval.hi < 0


def test_swapping_the_pictures_of_two_prompts_leaves_set_scores_alone_and_lowers_the_text_score() -> None:
    good = images(5)
    order = np.r_[3:6, 0:3, 6:24]
    swapped = {name: array[order] for name, array in good.arrays.items()}
    swapped[names.CLIP_TEXT] = good.array(names.CLIP_TEXT)
    base, other = score_steps({0: good, 10: ImageSet(good.cells, swapped)}, REAL, SPECS, RESAMPLING)
    assert other.values["fd_demo"].value == pytest.approx(base.values["fd_demo"].value, rel=1e-9)
    assert other.values["kid_demo"].value == pytest.approx(base.values["kid_demo"].value, rel=1e-9)
    assert other.values["is_demo"].value == pytest.approx(base.values["is_demo"].value, rel=1e-9)
    assert other.values["clip_demo"].value < base.values["clip_demo"].value


def test_row_order_does_not_change_a_score() -> None:
    step = images(6)
    shuffled = step.rows(np.random.default_rng(1).permutation(len(step)))
    base, same = score_steps({0: step, 10: shuffled}, REAL, SPECS, RESAMPLING)
    for key in SPECS:
        assert same.values[key].value == pytest.approx(base.values[key].value, rel=1e-9)
        assert same.differences[key].draws == pytest.approx(np.zeros(200), abs=1e-7)


def test_differences_are_taken_over_the_cells_that_both_have() -> None:
    base, full = images(7), images(8)
    partial = full.rows(range(4, len(full)))
    _, scores = score_steps({0: base, 10: partial}, REAL, SPECS, RESAMPLING)
    assert scores.n_used == len(base) - 4
    _, expected = score_steps({0: base.rows(range(4, len(base))), 10: partial}, REAL, SPECS, RESAMPLING)
    assert scores.differences["fd_demo"].value == pytest.approx(expected.differences["fd_demo"].value, rel=1e-9)
    assert scores.values["clip_demo"].value == expected.values["clip_demo"].value


def test_a_score_that_depends_on_the_number_of_images_is_refused_where_that_is_unequal() -> None:
    base, scores = score_steps({0: images(7), 10: images(8).rows(range(4, 24))}, REAL, SPECS, RESAMPLING)
    refused = {"fd_demo", "recall_demo", "vendi_demo", "is_demo"}
    assert set(SPECS) - set(scores.values) == refused == set(scores.absent)
    assert "needs 24, as other checkpoints have; there are 20" in scores.absent["fd_demo"]
    assert set(base.values) == set(SPECS)


def test_a_picture_that_base_lacks_too_leaves_the_difference_to_base() -> None:
    fewer = range(4, 24)
    sets = {0: images(7).rows(fewer), 10: images(8).rows(fewer), 20: images(9)}
    base, scores, _ = score_steps(sets, REAL, SPECS, RESAMPLING)
    assert "fd_demo" not in base.values
    assert "fd_demo" not in scores.values
    _, alone = score_steps({0: sets[0], 10: sets[10]}, REAL, SPECS, RESAMPLING)
    assert set(scores.differences) == set(SPECS)
    for key in SPECS:
        assert scores.differences[key].value == alone.differences[key].value
        assert scores.differences[key].draws.tolist() == alone.differences[key].draws.tolist()


def test_a_picture_without_a_value_takes_its_partner_out_of_the_difference() -> None:
    """Blank pictures of the sharpest prompt: without them base looks blurrier, though no picture is."""
    spec = {"sharpness_pct": METRIC_SPECS["sharpness_pct"]}
    n = 3 * len(PROMPTS)
    sharpness = np.repeat(np.linspace(0.9, 0.1, len(PROMPTS)), 3)
    train = ImageSet(
        cells=tuple((f"photo {i}", 0) for i in range(100)),
        arrays={names.SHARPNESS: np.linspace(0, 1, 100), names.FOREGROUND_SHARE: np.full(100, 0.2)},
    )

    def drawn(product: np.ndarray) -> ImageSet:
        return ImageSet(images(1).cells, {names.SHARPNESS: sharpness, names.FOREGROUND_SHARE: product})

    blank = np.where(np.arange(n) < 3, 0.0, 0.2)
    sets = {0: drawn(blank), 10: drawn(np.full(n, 0.2))}
    base, scores = score_steps(sets, RealPhotos(train=train, held_out=train), spec, RESAMPLING)
    assert base.values["sharpness_pct"].value < scores.values["sharpness_pct"].value - 0.03
    difference = scores.differences["sharpness_pct"]
    assert (difference.value, difference.interval.lo, difference.interval.hi) == (0.0, 0.0, 0.0)


def test_common_cells_are_in_one_order() -> None:
    step = images(9)
    a, b = common_cells(step.rows([5, 1, 3]), step.rows([3, 0, 5]))
    assert a.cells == b.cells == (step.cells[5], step.cells[3])


def test_a_checkpoint_without_pictures_has_no_values_and_says_why() -> None:
    _, scores = score_steps({0: images(10), 10: images(11).rows([])}, REAL, SPECS, RESAMPLING)
    assert scores.values == scores.differences == {}
    assert set(scores.absent) == set(SPECS)
    assert "needs at least 2 images; there are 0" in scores.absent["fd_demo"]
    assert scores.absent["clip_demo"] == "there is no valid image; it needs at least 1"


def test_a_broken_base_leaves_values_but_no_differences() -> None:
    base, scores = score_steps({0: images(12).rows([0]), 10: images(13).rows(range(3, 24))}, REAL, SPECS, RESAMPLING)
    assert "fd_demo" in scores.values
    assert "fd_demo" not in scores.differences
    assert "fd_demo" in base.absent


def test_no_prompt_with_a_known_colour_is_no_colour_score() -> None:
    (base,) = score_steps({0: images(14, colours=False)}, REAL, SPECS, RESAMPLING)
    assert set(base.absent) == {"colour_demo", "diversity_ratio_demo"}
    assert "needs prompts that ask for a colour which the classifier knows" in base.absent["colour_demo"]
    assert "needs at least 2 valid pictures of a prompt and 5 different" in base.absent["diversity_ratio_demo"]


def test_one_prompt_gives_values_without_intervals() -> None:
    single = images(15).rows(range(3))
    alone = resampling_of(("p0",), 200, np.random.default_rng(0))
    _, scores = score_steps({0: single, 10: single}, REAL, SPECS, alone)
    assert scores.values["clip_demo"].interval is None
    assert scores.differences["fd_demo"].interval is None
    assert scores.differences["fd_demo"].value == 0


def test_a_value_without_an_interval_says_why() -> None:
    """Recall needs 6 pictures: six prompts with one picture each have it, without one of them they have not."""
    whole = images(16)
    firsts = whole.rows([row for row, (_, seed) in enumerate(whole.cells) if seed == 0][:6])
    of_one = {p: (PROMPTS[0], i) for i, p in enumerate(firsts.cells)}
    specs = {"recall_demo": METRIC_SPECS["recall_demo"], "clip_demo": METRIC_SPECS["clip_demo"]}
    (few,) = score_steps({0: firsts}, REAL, specs, RESAMPLING)
    assert few.values["recall_demo"].interval is None
    assert few.absent == {
        "recall_demo_interval": "without the pictures of some prompt there is no value; it needs more pictures"
    }
    assert few.values["clip_demo"].interval is not None
    (alone,) = score_steps({0: ImageSet(tuple(of_one.values()), firsts.arrays)}, REAL, specs, RESAMPLING)
    assert set(alone.absent.values()) == {"it needs values of at least 2 prompts"}
    assert set(alone.absent) == {"recall_demo_interval", "clip_demo_interval"}


@pytest.mark.parametrize(("base_passes", "difference"), [(1.0, 0.0), (0.0, 1.0)])
def test_a_difference_of_yes_or_no_has_width_where_all_pictures_of_a_side_agree(
    base_passes: float, difference: float
) -> None:
    """24 of 24 against 24 of 24, or against none: other prompts may still tell them apart."""
    sets = {step: images(step) for step in (0, 10)}
    for step, share in ((0, base_passes), (10, 1.0)):
        sets[step].array(names.BACKGROUND_WHITE_SHARE)[:] = share
    _, scores = score_steps(sets, REAL, {"background_ok": SPECS["background_ok"]}, RESAMPLING)
    found, short = scores.differences["background_ok"], 1 - 24 / (24 + 1.959964**2)
    assert found.value == difference
    if difference:
        assert found.interval == Interval(pytest.approx(1 - np.sqrt(2) * short, abs=1e-6), 1.0)
    else:
        assert found.interval == Interval(pytest.approx(-short, abs=1e-6), pytest.approx(short, abs=1e-6))


def test_the_same_pictures_but_for_one_that_is_missing_differ_by_exactly_zero() -> None:
    _, scores = score_steps({0: images(1), 10: images(1).rows(range(1, 24))}, REAL, SPECS, RESAMPLING)
    for key in ("background_ok", "colour_demo", "fd_demo"):
        assert (scores.differences[key].interval.lo, scores.differences[key].interval.hi) == (0.0, 0.0)


def test_pictures_are_the_same_only_where_every_extractor_sees_the_same() -> None:
    one = images(1)
    order = np.random.default_rng(0).permutation(len(one))
    assert one.rows(order).contents() == one.contents()
    for name in one.arrays:
        moved = one.array(name).copy()
        moved[5] += 1
        other = ImageSet(one.cells, {**one.arrays, name: moved}).contents()
        assert [cell for cell in one.cells if other[cell] != one.contents()[cell]] == [one.cells[5]]


def test_one_prompt_with_values_among_many_gives_no_interval_of_their_mean() -> None:
    """Every resample of it is the same: an interval without width would be a claim."""
    some = images(15)
    asked = np.where(np.arange(len(some)) < 3, 0, -1)
    alone = ImageSet(some.cells, {**some.arrays, names.ASKED_COLOUR: asked})
    _, scores = score_steps({0: alone, 10: alone}, REAL, SPECS, RESAMPLING)
    assert scores.values["colour_demo"].interval is None
    assert scores.differences["colour_demo"].interval is None
    assert scores.values["clip_demo"].interval is not None


def test_an_interval_of_a_share_stays_within_its_bounds() -> None:
    """Seven prompts at 1 and one at 0.5: widened draws alone would reach beyond 100 %."""
    some = images(15)
    shares = np.zeros((len(some), 2))
    shares[:, 0] = np.where(np.arange(len(some)) < 3, 0.5, 1.0)
    arrays = {names.COLOUR_SHARES: shares, names.ASKED_FAMILY: np.zeros(len(some), dtype=np.int64)}
    specs = {"colour_share": METRIC_SPECS["colour_share"]}
    (scores,) = score_steps({0: ImageSet(some.cells, arrays)}, REAL, specs, RESAMPLING)
    found = scores.values["colour_share"]
    assert found.draws.max() > 1
    assert 0 < found.interval.lo < found.value < found.interval.hi == 1


def test_differences_to_the_best_are_those_of_a_paired_resampling() -> None:
    sets = {0: images(3, shift=2.0), 10: images(4), 20: images(5, shift=0.5)}
    scored = score_steps(sets, REAL, SPECS, RESAMPLING)
    best = best_steps(scored, SPECS, {"diversity_ratio_demo": 1.0})
    assert best["fd_demo"] == 10
    assert set(SPECS) - set(best) == {"vendi_demo", "is_demo"}, "what real photos have is not known of these"
    add_differences_to_best(scored, best, sets, real=REAL, specs=SPECS, resampling=RESAMPLING)
    base, first, second = scored
    assert "fd_demo" not in first.to_best
    assert base.to_best["fd_demo"].value == -first.differences["fd_demo"].value
    assert base.to_best["fd_demo"].interval.lo == pytest.approx(-first.differences["fd_demo"].interval.hi)
    value = second.values["fd_demo"].value - first.values["fd_demo"].value
    assert second.to_best["fd_demo"].value == value
    paired = second.values["fd_demo"].draws - first.values["fd_demo"].draws
    assert second.to_best["fd_demo"].draws == pytest.approx(paired)


def test_the_best_is_never_the_base_is_nearest_to_real_where_that_is_asked_and_the_earliest_of_equals() -> None:
    sets = {0: images(4), 10: images(3, shift=2.0), 20: images(3, shift=2.0)}
    scored = score_steps(sets, REAL, SPECS, RESAMPLING)
    aim = scored[1].values["vendi_demo"].value
    best = best_steps(scored, SPECS, {"vendi_demo": aim, "is_demo": 0.0, "diversity_ratio_demo": 1.0})
    assert set(best.values()) == {10}
    assert set(best) == set(SPECS)


def test_draws_are_kept_by_step_and_metric() -> None:
    scores = score_steps({0: images(16), 10: images(17)}, REAL, SPECS, RESAMPLING)
    draws = draws_by_name(scores)
    assert draws["10/fd_demo"] - draws["0/fd_demo"] == pytest.approx(draws["10/fd_demo/diff_base"])
    assert len(draws) == 3 * len(SPECS)
