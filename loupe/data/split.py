"""Who goes to train, val or test. Decided from rows alone, before any photo is opened.

So a missing or excluded photo never moves another one. It reads no files and draws only from the seed it is given.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from loupe.errors import PipelineError
from loupe.paths import SPLITS
from loupe.records import Split

OTHER = "Other"


def group_rare(values: Sequence[str], *, rare_below: int) -> list[str]:
    """Replace values that occur fewer than `rare_below` times by 'Other', so that every stratum can be shared out.

    Where the rare ones together are still fewer than `rare_below`, the least common other value joins them.
    """
    counts = Counter(values)
    rare = {value for value, n in counts.items() if n < rare_below}
    common = sorted(set(counts) - rare, key=lambda value: (counts[value], value))
    if rare and common and sum(counts[value] for value in rare) < rare_below:
        rare.add(common[0])
    return [OTHER if value in rare else value for value in values]


def split_rows(strata: Sequence[str], *, shares: Mapping[Split, float], seed: int) -> list[Split]:
    """Share rows out at random, each stratum alike: scikit-learn's train_test_split twice, first train, then val/test.

    Raises PipelineError where a stratum is too small to be shared out over the splits.
    """
    from sklearn.model_selection import train_test_split

    places = np.arange(len(strata))
    labels = np.asarray(strata)
    held_out = shares["val"] + shares["test"]
    try:
        train, rest = train_test_split(places, test_size=held_out, random_state=seed, stratify=labels)
        val, test = train_test_split(
            rest, test_size=shares["test"] / held_out, random_state=seed, stratify=labels[rest]
        )
    except ValueError as error:
        smallest = min(Counter(strata).items(), key=lambda item: item[1])
        raise PipelineError(
            f"{len(strata)} rows in {len(set(strata))} strata cannot be shared out over train, val and test: the "
            f"smallest, {smallest[0]!r}, has {smallest[1]}. Raise data.split.rare_below, set data.split.stratify_by to "
            f"none, or use more rows. (scikit-learn: {error})"
        ) from None
    split_of: dict[int, Split] = {}
    for split, members in zip(SPLITS, (train, val, test), strict=True):
        split_of.update(dict.fromkeys(members.tolist(), split))
    return [split_of[place] for place in range(len(strata))]


def split_families(
    strata: Sequence[str], families: Sequence[str], *, shares: Mapping[Split, float], seed: int
) -> list[Split]:
    """Share whole families out, keeping sizes and strata as near to the shares as whole families allow.

    Families go one by one, the largest first and equal ones in an order drawn by `seed`, each to the split where it
    leaves the smallest sum over splits and strata of (rows - target)^2 / target.
    """
    members: dict[str, list[int]] = {}
    for place, family in enumerate(families):
        members.setdefault(family, []).append(place)
    kinds = sorted(set(strata))
    column = {kind: i for i, kind in enumerate(kinds)}
    totals = np.array([Counter(strata)[kind] for kind in kinds], dtype=np.float64)
    # The last column is the size of the split as a whole: it weighs as much as all strata together.
    targets = np.outer([shares[split] for split in SPLITS], np.append(totals, totals.sum()))
    filled = np.zeros_like(targets)
    chosen: dict[int, Split] = {}
    for family in sorted(members, key=lambda name: (-len(members[name]), draw_rank(name, seed=seed))):
        rows = np.zeros(len(kinds) + 1)
        for place in members[family]:
            rows[column[strata[place]]] += 1
        rows[-1] = len(members[family])
        change = ((filled + rows - targets) ** 2 - (filled - targets) ** 2) / targets
        best = int(change.sum(axis=1).argmin())
        filled[best] += rows
        chosen.update(dict.fromkeys(members[family], SPLITS[best]))
    return [chosen[place] for place in range(len(strata))]


def draw_examples(
    ids: Mapping[Split, Sequence[str]], *, n_examples: int, shares: Mapping[Split, float], seed: int
) -> set[str]:
    """Draw at most `n_examples` ids, from each split its share; what a small split lacks the others do not make up.

    Every id has its own rank from (seed, id), so a larger draw contains the smaller one.
    """
    wanted = {split: n_examples * shares[split] for split in SPLITS}
    whole = {split: int(wanted[split]) for split in SPLITS}
    for split in sorted(SPLITS, key=lambda split: whole[split] - wanted[split])[: n_examples - sum(whole.values())]:
        whole[split] += 1
    ranked = {split: sorted(ids[split], key=lambda name: draw_rank(name, seed=seed)) for split in SPLITS}
    return {name for split in SPLITS for name in ranked[split][: whole[split]]}


def draw_rank(name: str, *, seed: int) -> str:
    """Return the place of `name` in a random order that depends on nothing but the name and the seed."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
