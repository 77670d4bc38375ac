"""The split: the documented one to the unit, families whole, and nobody moved by another's absence."""

from collections import Counter

import pytest

from loupe.data.split import draw_examples, group_rare, split_families, split_rows
from loupe.errors import PipelineError
from loupe.paths import SPLITS

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}


def strata(n=300):
    return [("Black", "Brown", "White")[i % 3] for i in range(n)]


def test_rare_values_are_grouped_and_common_ones_kept():
    values = ["Black"] * 20 + ["Red"] * 9 + ["Pink"] * 3
    assert Counter(group_rare(values, rare_below=10)) == {"Black": 20, "Other": 12}
    assert group_rare(values, rare_below=2) == values


def test_a_group_of_rare_values_that_is_still_too_small_takes_the_least_common_along():
    values = ["Black"] * 20 + ["Red"] * 11 + ["Pink"]
    assert Counter(group_rare(values, rare_below=10)) == {"Black": 20, "Other": 12}
    assert Counter(group_rare(["Black"] * 20 + ["Pink"], rare_below=10)) == {"Other": 21}


def test_every_stratum_is_shared_out_alike():
    splits = split_rows(strata(), shares=SHARES, seed=1)
    assert Counter(zip(strata(), splits, strict=True)) == {
        (colour, split): n
        for colour in ("Black", "Brown", "White")
        for split, n in zip(SPLITS, (70, 15, 15), strict=True)
    }


def test_the_split_follows_the_seed_and_nothing_else():
    assert split_rows(strata(), shares=SHARES, seed=1) == split_rows(strata(), shares=SHARES, seed=1)
    assert split_rows(strata(), shares=SHARES, seed=1) != split_rows(strata(), shares=SHARES, seed=2)


def test_it_is_scikit_learns_train_test_split_twice():
    import numpy as np
    from sklearn.model_selection import train_test_split

    labels = np.array(strata())
    train, rest = train_test_split(np.arange(300), test_size=0.3, random_state=42, stratify=labels)
    val, _ = train_test_split(rest, test_size=0.5, random_state=42, stratify=labels[rest])
    splits = split_rows(strata(), shares=SHARES, seed=42)
    assert {i for i, split in enumerate(splits) if split == "train"} == set(train.tolist())
    assert {i for i, split in enumerate(splits) if split == "val"} == set(val.tolist())


def test_a_stratum_too_small_to_share_out_says_what_to_change():
    with pytest.raises(PipelineError, match=r"'Red', has 1.*rare_below"):
        split_rows([*strata(30), "Red"], shares=SHARES, seed=1)


def test_no_family_straddles_and_sizes_and_strata_are_kept():
    values = strata(600)
    families = [f"family {i // 3}" for i in range(600)]
    splits = split_families(values, families, shares=SHARES, seed=3)
    assert all(len(set(splits[i : i + 3])) == 1 for i in range(0, 600, 3))
    assert Counter(splits) == {"train": 420, "val": 90, "test": 90}
    black = Counter(split for value, split in zip(values, splits, strict=True) if value == "Black")
    assert black == {"train": 140, "val": 30, "test": 30}


def test_a_family_larger_than_the_held_out_splits_goes_to_train():
    families = ["big"] * 60 + [f"single {i}" for i in range(40)]
    splits = split_families(["Black"] * 100, families, shares=SHARES, seed=3)
    assert set(splits[:60]) == {"train"}
    assert Counter(splits) == {"train": 70, "val": 15, "test": 15}


def test_singletons_are_dealt_by_the_seed():
    families = [f"single {i}" for i in range(200)]
    one, again, other = (split_families(["x"] * 200, families, shares=SHARES, seed=s) for s in (1, 1, 2))
    assert one == again
    assert one != other


def test_a_draw_takes_each_splits_share_and_a_larger_one_contains_it():
    ids = {split: [f"{split}-{i}" for i in range(100)] for split in SPLITS}
    small, large = (draw_examples(ids, n_examples=n, shares=SHARES, seed=5) for n in (20, 60))
    assert Counter(name.split("-")[0] for name in small) == {"train": 14, "val": 3, "test": 3}
    assert Counter(name.split("-")[0] for name in large) == {"train": 42, "val": 9, "test": 9}
    assert small < large
    assert small != draw_examples(ids, n_examples=20, shares=SHARES, seed=6)


@pytest.mark.parametrize("n", range(1, 30))
def test_a_draw_never_exceeds_what_was_asked_for(n):
    ids = {split: [f"{split}-{i}" for i in range(100)] for split in SPLITS}
    assert len(draw_examples(ids, n_examples=n, shares=SHARES, seed=5)) == n
