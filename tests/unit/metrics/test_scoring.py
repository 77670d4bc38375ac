"""Scores of checkpoints: paired, equal for equal pictures, absent with a reason where they cannot be had."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from loupe.metric_specs import METRIC_SPECS
from loupe.metrics import image_set as names
from loupe.metrics.estimates import resampling_of
from loupe.metrics.evaluation import aims_of
from loupe.metrics.image_set import ImageSet, RealPhotos
from loupe.metrics.nulls import real_nulls, real_scores
from loupe.metrics.scoring import (
    add_differences_to_best,
    best_steps,
    common_cells,
    draws_by_name,
    score_steps,
)

KEYS = (
    "fd_demo", "kid_demo", "recall_demo", "precision_demo", "clip_demo", "colour_demo", "background_ok",
    "memor_share_demo", "diversity_ratio_demo", "vendi_demo", "is_demo",
)  # fmt: skip
SPECS = {key: METRIC_SPECS[key] for key in KEYS}
PROMPTS = tuple(f"p{i}" for i in range(8))


def images(seed: int, *, shift: float = 0.0, seeds: int = 3, colours: bool = True) -> ImageSet:
    rng = np.random.default_rng(seed)
    cells = tuple((prompt, index) for prompt in PROMPTS for index in range(seeds))
    n = len(cells)
    text = np.repeat(np.random.default_rng(99).normal(size=(len(PROMPTS), 6)), seeds, axis=0)
    return ImageSet(
        cells=cells,
        arrays={
            names.FEATURES: rng.normal(size=(n, 5)) + shift,
            names.LOGITS: rng.normal(size=(n, 4)),
            names.COLOUR_LOGITS: rng.normal(size=(n, 3)),
            names.ASKED_COLOUR: np.arange(n) % 3 if colours else np.full(n, -1),
            names.CLIP_IMAGE: text + rng.normal(size=(n, 6)),
            names.CLIP_TEXT: text,
            names.ASKED_FAMILY: np.arange(n) // seeds % 2 if colours else np.full(n, -1),
            names.BACKGROUND_WHITE_SHARE: rng.uniform(0.97, 1, n),
        },
    )


REAL = RealPhotos(train=images(1001), held_out=images(1000))
RESAMPLING = resampling_of(PROMPTS, 200, np.random.default_rng(0))


def test_the_same_pictures_under_two_names_differ_by_exactly_zero() -> None:
    base, again = images(1), images(1)
    _, scores = score_steps({0: base, 10: again}, REAL, SPECS, RESAMPLING)
    for key in SPECS:
        difference = scores.differences[key]
        assert difference.value == 0.0
        assert (difference.interval.lo, difference.interval.hi) == (0.0, 0.0)


def test_only_means_over_images_and_unbiased_scores_have_an_interval_of_their_own() -> None:
    (base,) = score_steps({0: images(1)}, REAL, SPECS, RESAMPLING)
    assert {key for key, estimate in base.values.items() if estimate.interval} == {
        "kid_demo", "precision_demo", "clip_demo", "colour_demo", "background_ok", "memor_share_demo",
        "diversity_ratio_demo",
    }  # fmt: skip
    assert base.differences == {}


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


# --- nulls -----------------------------------------------------------------------------------------------------------


def nulls(train: ImageSet, n_generated: int):
    real = RealPhotos(train=train, held_out=REAL.held_out)
    return real_nulls(real, SPECS, n_generated=n_generated, n_draws=40, rng=np.random.default_rng(0))


def test_null_is_real_against_real_at_the_n_in_use() -> None:
    train = images(20, seeds=20)
    few, many = nulls(train, 12)["fd_demo"], nulls(train, 100)["fd_demo"]
    assert (few.n_a, few.n_b, few.n_draws) == (12, len(REAL.held_out), 40)
    assert few.lo < few.mean < few.hi
    assert few.mean > many.mean, "fewer images alone make the distance larger"


def test_null_never_claims_more_photos_than_there_are() -> None:
    train = images(21)
    null = nulls(train, 500)["fd_demo"]
    assert (null.n_a, null.n_draws) == (len(train), 1)
    assert null.lo == null.mean == null.hi


def test_every_score_has_a_null_with_a_second_set_where_it_compares_with_one() -> None:
    found = nulls(images(22), 10)
    assert set(found) == set(SPECS)
    assert {key for key, null in found.items() if null.n_b} == {
        "fd_demo", "kid_demo", "recall_demo", "precision_demo", "memor_share_demo"
    }  # fmt: skip
    assert found["diversity_ratio_demo"].lo <= 1 <= found["diversity_ratio_demo"].hi
    assert found["memor_share_demo"].mean == pytest.approx(1 / (len(REAL.held_out) + 1))


def test_too_few_real_photos_give_no_null() -> None:
    assert {"fd_demo", "kid_demo", "recall_demo", "diversity_ratio_demo"}.isdisjoint(nulls(images(23).rows([0]), 10))


def test_only_one_subset_of_the_photos_is_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[ImageSet]] = []
    rows = ImageSet.rows

    class Watched(ImageSet):
        """An image set that can be referred to weakly; slots keep the class itself from that."""

    def watched_rows(photos: ImageSet, indices: np.ndarray) -> ImageSet:
        assert sum(subset() is not None for subset in alive) <= 1
        picked = rows(photos, indices)
        subset = Watched(picked.cells, picked.arrays)
        alive.append(weakref.ref(subset))
        return subset

    monkeypatch.setattr(ImageSet, "rows", watched_rows)
    assert set(nulls(images(22), 10)) == set(SPECS)
    real_scores(REAL, SPECS, n_generated=10, n_draws=20, rng=np.random.default_rng(0))
    assert len(alive) == 40 + 1 + 20


def test_real_scores_are_those_of_val_photos() -> None:
    found = real_scores(REAL, SPECS, n_generated=10, n_draws=20, rng=np.random.default_rng(0))
    (alone,) = score_steps({0: REAL.held_out}, REAL, SPECS, RESAMPLING)
    assert set(found) == {
        "clip_demo", "colour_demo", "background_ok", "memor_share_demo", "diversity_ratio_demo", "vendi_demo", "is_demo"
    }  # fmt: skip
    for key in ("clip_demo", "colour_demo", "background_ok"):
        assert found[key].value == pytest.approx(alone.values[key].value)
        assert found[key].n == len(REAL.held_out)
    assert found["is_demo"].value < alone.values["is_demo"].value, "at N = 10 it is lower than at N = 24"
    assert found["is_demo"].n == found["vendi_demo"].n == 10


def test_the_aim_of_a_set_is_that_of_as_many_photos_as_pictures_and_of_a_mean_that_of_unseen_photos() -> None:
    """With 24 val photos for 60 pictures, Vendi of the val photos is what 24 different ones have: no aim for 60."""
    real = RealPhotos(train=images(20, seeds=20), held_out=REAL.held_out)
    options = {"n_generated": 60, "n_draws": 20}
    drawn = real_nulls(real, SPECS, rng=np.random.default_rng(0), **options)
    alone = real_scores(real, SPECS, rng=np.random.default_rng(0), **options)
    aims = aims_of(drawn, alone)
    for key in ("is_demo", "vendi_demo"):
        assert (drawn[key].n_a, alone[key].n) == (60, 24)
        assert aims[key] == drawn[key].mean > alone[key].value
    assert aims["diversity_ratio_demo"] == alone["diversity_ratio_demo"].value
    few = real_scores(real, SPECS, n_generated=20, n_draws=20, rng=np.random.default_rng(0))
    same = real_nulls(real, SPECS, n_generated=20, n_draws=20, rng=np.random.default_rng(0))
    assert aims_of(same, few)["is_demo"] == few["is_demo"].value
