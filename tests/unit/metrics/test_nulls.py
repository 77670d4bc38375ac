"""What real photos score: against each other at the N in use, alone, and as the aim of a checkpoint."""

from __future__ import annotations

import weakref
from collections import Counter

import numpy as np
import pytest

from loupe.diffusion.prompts import caption_prompts
from loupe.evaluation_records import PhotoDraws
from loupe.metric_specs import METRIC_SPECS
from loupe.metrics import image_set as names
from loupe.metrics.colour_families import FAMILIES
from loupe.metrics.estimates import resampling_of
from loupe.metrics.evaluation import aims_of
from loupe.metrics.image_set import ASKED_FAMILY, COLOUR_SHARES, FOREGROUND_SHARE, ImageSet, RealPhotos
from loupe.metrics.nulls import as_prompts, photo_scores, real_nulls, real_scores
from loupe.metrics.scoring import score_steps, value_of
from loupe.records import CaptionRecord
from tests.unit.metrics.drawn_sets import PROMPTS, REAL, SPECS, images
from tests.unit.metrics.image_sets import image_set

RESAMPLING = resampling_of(PROMPTS, 200, np.random.default_rng(0))


def nulls(train: ImageSet, n_generated: int):
    real = RealPhotos(train=train, held_out=REAL.held_out)
    return real_nulls(real, SPECS, n_generated=n_generated, n_prompts=5, n_draws=40, rng=np.random.default_rng(0))


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
    real_scores(REAL, SPECS, n_generated=10, n_prompts=5, n_draws=20, rng=np.random.default_rng(0))
    assert len(alive) == 40 + 1 + 20


def test_real_scores_are_those_of_val_photos() -> None:
    found = real_scores(REAL, SPECS, n_generated=10, n_prompts=5, n_draws=20, rng=np.random.default_rng(0))
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
    options = {"n_generated": 60, "n_prompts": 8, "n_draws": 20}
    drawn = real_nulls(real, SPECS, rng=np.random.default_rng(0), **options)
    alone = real_scores(real, SPECS, rng=np.random.default_rng(0), **options)
    aims = aims_of(drawn, alone)
    for key in ("is_demo", "vendi_demo"):
        assert (drawn[key].n_a, alone[key].n) == (60, 24)
        assert aims[key] == drawn[key].mean > alone[key].value
    assert aims["diversity_ratio_demo"] == alone["diversity_ratio_demo"].value
    few = real_scores(real, SPECS, n_generated=20, n_prompts=8, n_draws=20, rng=np.random.default_rng(0))
    same = real_nulls(real, SPECS, n_generated=20, n_prompts=8, n_draws=20, rng=np.random.default_rng(0))
    assert aims_of(same, few)["is_demo"] == few["is_demo"].value


def test_photos_come_in_groups_as_large_as_a_prompt_has_pictures() -> None:
    """What is asked of the pictures of a prompt together is asked of as many photos of one colour."""
    photos = image_set(7, **{ASKED_FAMILY: np.array([4, 4, 2, 4, -1, 4, 2])})
    cells = as_prompts(photos, 2).cells
    assert cells == (
        ("family 4, 0", 0), ("family 4, 0", 1), ("family 2, 0", 0), ("family 4, 1", 0), ("family -1, 0", 0),
        ("family 4, 1", 1), ("family 2, 0", 1),
    )  # fmt: skip


def test_the_null_of_a_prompts_mean_is_of_as_many_photos_as_it_has_pictures() -> None:
    """Shares vary, and the mean of few is above what photos have as often as below, where it counts as 1 alone."""
    rng, n = np.random.default_rng(0), 400
    shares = np.zeros((n, len(FAMILIES)))
    shares[:, 0] = rng.uniform(0.2, 1.0, n)
    arrays = {COLOUR_SHARES: shares, ASKED_FAMILY: np.zeros(n, dtype=np.int64), FOREGROUND_SHARE: np.full(n, 0.3)}
    real = RealPhotos(train=image_set(n, **arrays), held_out=image_set(n, **arrays))
    specs = {"colour_ratio": METRIC_SPECS["colour_ratio"]}
    by_seeds = {}
    for n_seeds in (1, 4, 16):
        size = {"n_generated": 64, "n_prompts": 64 // n_seeds, "n_draws": 40}
        by_seeds[n_seeds] = real_nulls(real, specs, rng=np.random.default_rng(1), **size)["colour_ratio"].mean
    assert by_seeds[1] < by_seeds[4] - 0.03 < by_seeds[16] - 0.06 < 1 - 0.06
    of_pairs = np.minimum(1, shares[:, 0] / shares[:, 0].mean()).mean()
    assert by_seeds[1] == pytest.approx(of_pairs, abs=0.02)


def test_nulls_and_the_photos_own_scores_have_random_numbers_of_their_own() -> None:
    draws = PhotoDraws(n_generated=10, n_prompts=5, n_draws=20, seed=7, stream=3)
    found = photo_scores(REAL, SPECS, draws)
    size = {"n_generated": 10, "n_prompts": 5, "n_draws": 20}
    assert found["nulls"] == real_nulls(REAL, SPECS, rng=np.random.default_rng([7, 3]), **size)
    assert found["real_scores"] == real_scores(REAL, SPECS, rng=np.random.default_rng([7, 4]), **size)


# --- the text-image gap ----------------------------------------------------------------------------------------------

GAP = {"clip_gap_demo": METRIC_SPECS["clip_gap_demo"]}


def of_colours(sizes: list[int], rng: np.random.Generator) -> ImageSet:
    """Pictures that show just what their caption says: a colour, which counts most, and something of their own."""
    families = np.repeat(np.arange(len(sizes)), sizes)
    text = np.concatenate([np.eye(len(sizes))[families], 0.2 * rng.normal(size=(len(families), 40))], axis=1)
    cells = tuple((f"{i}", 0) for i in range(len(families)))
    return ImageSet(cells, {names.CLIP_TEXT: text, names.CLIP_IMAGE: text, names.ASKED_FAMILY: families})


def test_the_gap_of_photos_is_that_of_pictures_whose_prompts_were_spread_over_the_colours() -> None:
    """Of 55 photos 40 are black: among all captions a black shoe's own is hardly better than the others."""
    rng = np.random.default_rng(0)
    real = RealPhotos(train=of_colours([160, 20, 20, 10, 10], rng), held_out=of_colours([40, 5, 4, 3, 3], rng))
    options = {"n_generated": 40, "n_prompts": 10, "n_draws": 60, "rng": rng}
    alone, null = real_scores(real, GAP, **options)["clip_gap_demo"], real_nulls(real, GAP, **options)["clip_gap_demo"]
    runs = [value_of(of_colours([2] * 5, rng), real, GAP["clip_gap_demo"]) for _ in range(200)]
    assert alone.value == pytest.approx(np.mean(runs), abs=1)
    assert null.mean == pytest.approx(np.mean(runs), abs=1)
    assert (alone.n, null.n_a, null.n_draws) == (10, 10, 60)
    assert value_of(real.held_out, real, GAP["clip_gap_demo"]) < np.mean(runs) - 15


def test_photos_are_taken_in_turns_over_the_colours_as_captions_are_for_prompts() -> None:
    """Seven prompts of five colours: the two most frequent ones are asked for twice, as in `caption_prompts`."""
    rng = np.random.default_rng(1)
    sizes = [6, 9, 5, 4, 3]
    photos = of_colours(sizes, rng)
    records = [
        CaptionRecord.model_construct(image_id=f"{i}", caption="shoes", attributes={"colour": str(family)})
        for i, family in enumerate(photos.array(names.ASKED_FAMILY))
    ]
    prompts = Counter(int(p.colour) for p in caption_prompts(records, split="val", count=7, seed=0))
    seen = []

    def watched(subset: ImageSet, real: RealPhotos) -> np.ndarray:
        del real
        seen.append(Counter(subset.array(names.ASKED_FAMILY).tolist()))
        return np.zeros(len(subset))

    real = RealPhotos(train=photos, held_out=photos)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("loupe.metrics.clip_score.clip_gaps", watched)
        patch.setattr("loupe.metrics.nulls.clip_gaps", watched)
        real_scores(real, GAP, n_generated=20, n_prompts=7, n_draws=5, rng=rng)
    assert seen == [prompts] * 5
