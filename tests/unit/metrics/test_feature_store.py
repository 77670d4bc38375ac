"""Features are computed once per item, only what is missing, and never under another extractor's name."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from loupe.errors import PipelineError
from loupe.metrics import feature_store
from loupe.metrics.feature_store import NotFiniteError, complete_arrays, stored_arrays, stored_keys
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


def complete(
    store: WorkStore, items: dict[str, float], extractor: Doubler, *, kind: str = "features/a", batch: int = 4
):
    keys, values = list(items), list(items.values())
    return complete_arrays(
        store, kind, keys, read=values.__getitem__, load=extractor.load, batch_size=batch, what="numbers"
    )


def stored(store: WorkStore, keys: str, *, kind: str = "features/a") -> dict[str, np.ndarray]:
    """Each letter is a key."""
    return stored_arrays(store, kind, list(keys))


def test_second_time_nothing_is_loaded_or_read(tmp_path: Path) -> None:
    store, items = WorkStore(tmp_path), {"a": 1.0, "b": 2.0, "c": 3.0}
    first = complete(store, items, Doubler())
    before, idle = stored(store, "abc"), Doubler()

    def unread(_index: int) -> float:
        raise AssertionError("an item with stored features was opened")

    again = complete_arrays(store, "features/a", list(items), read=unread, load=idle.load, batch_size=4, what="numbers")
    assert (first.computed, first.reused) == (3, 0)
    assert (again.computed, again.reused, idle.loads) == (0, 3, 0)
    assert np.array_equal(stored(store, "abc")["double"], [[2.0], [4.0], [6.0]])
    assert np.array_equal(stored(store, "abc")["square"], before["square"])


def test_only_new_items_are_computed_and_the_order_is_the_callers(tmp_path: Path) -> None:
    store = WorkStore(tmp_path)
    complete(store, {"a": 1.0, "b": 2.0}, Doubler())
    extractor = Doubler()
    found = complete(store, {"z": 9.0, "b": 2.0, "a": 1.0}, extractor)
    assert set(extractor.batches[0]) == {9.0}
    assert stored(store, "zba")["square"].tolist() == [81.0, 4.0, 1.0]
    assert (found.computed, found.reused) == (1, 2)


def test_another_kind_shares_nothing(tmp_path: Path) -> None:
    store, extractor = WorkStore(tmp_path), Doubler()
    complete(store, {"a": 1.0}, Doubler())
    assert complete(store, {"a": 1.0}, extractor, kind="features/b").computed == 1
    assert extractor.loads == 1


def test_equal_items_are_computed_once(tmp_path: Path) -> None:
    extractor = Doubler()
    found = complete_arrays(
        WorkStore(tmp_path), "features/a", ["a", "b", "a"], read=[5.0, 6.0, 5.0].__getitem__, load=extractor.load,
        batch_size=2, what="numbers",
    )  # fmt: skip
    assert extractor.batches == [[5.0, 6.0]]
    assert (found.computed, found.reused) == (2, 0)
    assert stored(WorkStore(tmp_path), "aba")["square"].tolist() == [25.0, 36.0, 25.0]


def test_every_batch_has_the_full_size(tmp_path: Path) -> None:
    """Kernels round by batch shape: what else is missing must not change an item's features."""
    extractor = Doubler()
    complete(WorkStore(tmp_path), {"a": 1.0, "b": 2.0, "c": 3.0}, extractor, batch=2)
    assert [len(batch) for batch in extractor.batches] == [2, 2]
    assert stored(WorkStore(tmp_path), "abc")["square"].tolist() == [1.0, 4.0, 9.0]


def test_nan_is_refused_and_not_stored(tmp_path: Path) -> None:
    store = WorkStore(tmp_path)
    with pytest.raises(NotFiniteError, match="double"):
        complete(store, {"a": float("nan")}, Doubler())
    assert complete(store, {"a": 1.0}, Doubler()).computed == 1


def test_what_is_not_finite_is_named_for_the_user_and_nothing_else(tmp_path: Path) -> None:
    values = [1.0, float("nan"), 3.0, float("inf"), 5.0]
    with pytest.raises(PipelineError) as caught:
        complete_arrays(
            WorkStore(tmp_path), "features/a", list("abcde"), read=values.__getitem__, load=Doubler().load,
            batch_size=4, what="samples: an extractor", name=lambda index: f"picture {index}.png",
        )  # fmt: skip
    assert str(caught.value).startswith(
        "samples: an extractor: NaN or infinity in double for picture 1.png, picture 3.png. Every"
    )


def test_a_broken_shard_is_computed_anew(tmp_path: Path) -> None:
    store = WorkStore(tmp_path)
    complete(store, {"a": 1.0}, Doubler())
    (shard,) = (tmp_path / "features" / "a").rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:40])
    assert complete(store, {"a": 1.0}, Doubler()).computed == 1


def shards(store: WorkStore) -> list[Path]:
    return sorted((store.root / "features" / "a").rglob("*.safetensors"))


@pytest.mark.parametrize("at", [-1, -9, -20])
def test_a_flipped_bit_in_a_shard_makes_its_items_missing_and_computed_anew(tmp_path: Path, at: int) -> None:
    store, items = WorkStore(tmp_path), {"a": 1.0, "b": 2.0}
    complete(store, items, Doubler())
    expected = stored(store, "ab")
    (shard,) = shards(store)
    content = bytearray(shard.read_bytes())
    content[at] ^= 1
    time.sleep(0.02)  # a second write within one tick of the file system's clock leaves the same time of change
    shard.write_bytes(bytes(content))
    assert stored_keys(store, "features/a", "ab") == set()
    with pytest.raises(KeyError, match="lacks 2 of 2"):
        stored(store, "ab")
    found = complete(store, items, Doubler())
    assert (found.computed, found.reused) == (2, 0)
    assert all(np.array_equal(array, expected[name]) for name, array in stored(store, "ab").items())


def test_keys_that_changed_places_are_not_believed(tmp_path: Path) -> None:
    store, items = WorkStore(tmp_path), {"a": 1.0, "b": 2.0}
    complete(store, items, Doubler())
    (shard,) = shards(store)
    content = shard.read_bytes()
    swapped = content.replace(rb"[\"a\", \"b\"]", rb"[\"b\", \"a\"]")
    assert swapped != content
    shard.write_bytes(swapped)
    assert complete(store, items, Doubler()).computed == 2
    assert stored(store, "ab")["square"].tolist() == [1.0, 4.0]


def test_a_shard_without_a_hash_is_computed_anew(tmp_path: Path) -> None:
    store = WorkStore(tmp_path)
    with store.put("features/a", "0" * 64, ".safetensors") as path:
        save_file({"square": np.array([7.0])}, path, metadata={"keys": '["a"]'})
    assert complete(store, {"a": 1.0}, Doubler()).computed == 1
    assert stored(store, "a")["square"].tolist() == [1.0]


def test_a_damaged_shard_leaves_the_others_and_none_is_hashed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    real = feature_store._sha256
    monkeypatch.setattr(feature_store, "ROWS_PER_SHARD", 2)
    store, items = WorkStore(tmp_path), {letter: float(i) for i, letter in enumerate("abcdef")}
    complete(store, items, Doubler())
    damaged = shards(store)[1]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x01")
    monkeypatch.setattr(feature_store, "_sha256", lambda keys, arrays: hashed.append(keys) or real(keys, arrays))
    found = complete(store, items, Doubler())
    assert (found.computed, found.reused) == (2, 4)
    hashed.clear()
    for _ in range(3):
        assert stored(store, "abcdef")["square"].tolist() == [0.0, 1.0, 4.0, 9.0, 16.0, 25.0]
    assert len(hashed) == 1, "the one that was written anew"


def test_finished_shards_survive_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loupe.metrics.feature_store.ROWS_PER_SHARD", 2)
    store = WorkStore(tmp_path)
    values = [1.0, 2.0, float("inf"), 4.0]
    with pytest.raises(NotFiniteError):
        complete_arrays(
            store, "features/a", list("abcd"), read=values.__getitem__, load=Doubler().load, batch_size=2, what="n"
        )
    found = complete(store, {"a": 1.0, "b": 2.0, "c": 3.0}, Doubler())
    assert (found.computed, found.reused) == (1, 2)


def test_no_items_give_no_arrays(tmp_path: Path) -> None:
    assert complete(WorkStore(tmp_path), {}, Doubler()).computed == 0
    assert stored(WorkStore(tmp_path), "") == {}


def test_what_was_never_stored_is_not_made_up(tmp_path: Path) -> None:
    store = WorkStore(tmp_path)
    complete(store, {"a": 1.0, "b": 2.0}, Doubler())
    assert stored_keys(store, "features/a", "abz") == {"a", "b"}
    with pytest.raises(KeyError, match="lacks 1 of 2 items"):
        stored(store, "az")
    with pytest.raises(KeyError):
        stored(store, "a", kind="features/b")


def test_rows_are_found_wherever_their_shard_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loupe.metrics.feature_store.ROWS_PER_SHARD", 2)
    complete(WorkStore(tmp_path), {letter: float(i) for i, letter in enumerate("abcdefg")}, Doubler())
    assert len(list((tmp_path / "features" / "a").rglob("*.safetensors"))) == 4
    assert stored(WorkStore(tmp_path), "gbgac")["square"].tolist() == [36.0, 1.0, 36.0, 0.0, 4.0]
