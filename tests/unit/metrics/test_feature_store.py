"""Features are computed once per item, only what is missing, and never under another extractor's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from loupe.metrics.feature_store import NotFiniteError, gather_arrays
from loupe.workstore import WorkStore


class Doubler:
    """An extractor of numbers that remembers what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.loads = 0

    def load(self):
        self.loads += 1
        return self.compute

    def compute(self, items: Sequence[float]) -> dict[str, np.ndarray]:
        self.batches.append(list(items))
        return {"double": 2 * np.array(items)[:, None], "square": np.array(items) ** 2}


def gather(store: WorkStore, items: dict[str, float], extractor: Doubler, *, kind: str = "features/a", batch: int = 4):
    keys, values = list(items), list(items.values())
    return gather_arrays(
        store, kind, keys, read=values.__getitem__, load=extractor.load, batch_size=batch, what="numbers"
    )


def test_second_time_nothing_is_loaded_or_read(tmp_path: Path) -> None:
    store, items = WorkStore(tmp_path), {"a": 1.0, "b": 2.0, "c": 3.0}
    first = gather(store, items, Doubler())
    idle = Doubler()

    def unread(_index: int) -> float:
        raise AssertionError("an item with stored features was opened")

    again = gather_arrays(store, "features/a", list(items), read=unread, load=idle.load, batch_size=4, what="numbers")
    assert (first.computed, first.reused) == (3, 0)
    assert (again.computed, again.reused, idle.loads) == (0, 3, 0)
    assert np.array_equal(again.arrays["double"], [[2.0], [4.0], [6.0]])
    assert np.array_equal(first.arrays["square"], again.arrays["square"])


def test_only_new_items_are_computed_and_the_order_is_the_callers(tmp_path: Path) -> None:
    store = WorkStore(tmp_path)
    gather(store, {"a": 1.0, "b": 2.0}, Doubler())
    extractor = Doubler()
    found = gather(store, {"z": 9.0, "b": 2.0, "a": 1.0}, extractor)
    assert set(extractor.batches[0]) == {9.0}
    assert found.arrays["square"].tolist() == [81.0, 4.0, 1.0]
    assert (found.computed, found.reused) == (1, 2)


def test_another_kind_shares_nothing(tmp_path: Path) -> None:
    store, extractor = WorkStore(tmp_path), Doubler()
    gather(store, {"a": 1.0}, Doubler())
    assert gather(store, {"a": 1.0}, extractor, kind="features/b").computed == 1
    assert extractor.loads == 1


def test_equal_items_are_computed_once(tmp_path: Path) -> None:
    extractor = Doubler()
    found = gather_arrays(
        WorkStore(tmp_path), "features/a", ["a", "b", "a"], read=[5.0, 6.0, 5.0].__getitem__, load=extractor.load,
        batch_size=2, what="numbers",
    )  # fmt: skip
    assert extractor.batches == [[5.0, 6.0]]
    assert found.arrays["square"].tolist() == [25.0, 36.0, 25.0]


def test_every_batch_has_the_full_size(tmp_path: Path) -> None:
    """Kernels round by batch shape: what else is missing must not change an item's features."""
    extractor = Doubler()
    found = gather(WorkStore(tmp_path), {"a": 1.0, "b": 2.0, "c": 3.0}, extractor, batch=2)
    assert [len(batch) for batch in extractor.batches] == [2, 2]
    assert found.arrays["square"].tolist() == [1.0, 4.0, 9.0]


def test_nan_is_refused_and_not_stored(tmp_path: Path) -> None:
    store = WorkStore(tmp_path)
    with pytest.raises(NotFiniteError, match="double"):
        gather(store, {"a": float("nan")}, Doubler())
    assert gather(store, {"a": 1.0}, Doubler()).computed == 1


def test_a_broken_shard_is_computed_anew(tmp_path: Path) -> None:
    store = WorkStore(tmp_path)
    gather(store, {"a": 1.0}, Doubler())
    (shard,) = (tmp_path / "features" / "a").rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:40])
    assert gather(store, {"a": 1.0}, Doubler()).computed == 1


def test_finished_shards_survive_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loupe.metrics.feature_store.ROWS_PER_SHARD", 2)
    store = WorkStore(tmp_path)
    values = [1.0, 2.0, float("inf"), 4.0]
    with pytest.raises(NotFiniteError):
        gather_arrays(
            store, "features/a", list("abcd"), read=values.__getitem__, load=Doubler().load, batch_size=2, what="n"
        )
    found = gather(store, {"a": 1.0, "b": 2.0, "c": 3.0}, Doubler())
    assert (found.computed, found.reused) == (1, 2)


def test_no_items_give_no_arrays(tmp_path: Path) -> None:
    found = gather(WorkStore(tmp_path), {}, Doubler())
    assert (found.arrays, found.computed) == ({}, 0)
