"""What an extractor said about each item, computed once and kept in the work store by the item's hash.

The store's kind names everything else that decided the bytes (weights, resize, code, libraries, device), so a changed
extractor never meets old features. It knows no extractor, and nothing of images or texts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loupe.progress import track
from loupe.workstore import WorkStore, fingerprint

ROWS_PER_SHARD = 512
"""A shard is one file of the store; what is done of a killed stage is lost up to one shard."""

Compute = Callable[[Sequence[Any]], Mapping[str, NDArray]]
"""Items of one batch -> arrays with one row per item."""


class NotFiniteError(ValueError):
    """An extractor returned NaN or infinity."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """Arrays with one row per item, and how many distinct items had to be computed."""

    arrays: dict[str, NDArray]
    computed: int
    reused: int


def gather_arrays(
    store: WorkStore,
    kind: str,
    keys: Sequence[str],
    *,
    read: Callable[[int], Any],
    load: Callable[[], Compute],
    batch_size: int,
    what: str,
    unit: str = "image",
) -> Gathered:
    """Return the arrays of every item, computing and storing those that the store lacks.

    `keys` are the items' hashes (they may repeat), `read(i)` opens item i, `load()` yields the function to compute
    with and is called only when something is missing. Raises NotFiniteError for NaN or infinity.
    """
    rows = dict(_stored_rows(store, kind, set(keys)))
    reused = len(rows)
    first_index = {key: index for index, key in reversed(list(enumerate(keys)))}
    missing = [key for key in dict.fromkeys(keys) if key not in rows]
    if missing:
        computed = _computed_rows([(k, first_index[k]) for k in missing], read, load(), batch_size)
        for shard in _shards(track(computed, total=len(missing), what=what, unit=unit)):
            _write_shard(store, kind, shard)
            rows.update(shard)
    names = sorted(next(iter(rows.values()))) if rows else []
    arrays = {name: np.stack([rows[key][name] for key in keys]) for name in names}
    return Gathered(arrays=arrays, computed=len(missing), reused=reused)


_Row = dict[str, NDArray]


def _computed_rows(
    items: Sequence[tuple[str, int]], read: Callable[[int], Any], compute: Compute, batch_size: int
) -> Iterator[tuple[str, _Row]]:
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        opened = [read(index) for _, index in batch]
        padding = [opened[-1]] * (
            batch_size - len(batch)
        )  # kernels round by batch shape: it must not depend on the rest
        arrays = {name: array[: len(batch)] for name, array in compute(opened + padding).items()}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise NotFiniteError(f"{name}: NaN or infinity for {batch[0][0][:12]} ... {batch[-1][0][:12]}")
        for row, (key, _) in enumerate(batch):
            yield key, {name: array[row] for name, array in arrays.items()}


def _shards(rows: Iterator[tuple[str, _Row]]) -> Iterator[dict[str, _Row]]:
    shard: dict[str, _Row] = {}
    for key, row in rows:
        shard[key] = row
        if len(shard) >= ROWS_PER_SHARD:
            yield shard
            shard = {}
    if shard:
        yield shard


def _write_shard(store: WorkStore, kind: str, shard: dict[str, _Row]) -> None:
    from safetensors.numpy import save_file

    keys = sorted(shard)
    arrays = {name: np.stack([shard[key][name] for key in keys]) for name in shard[keys[0]]}
    with store.put(kind, fingerprint({"keys": keys}), ".safetensors") as temporary:
        save_file(arrays, temporary, metadata={"keys": json.dumps(keys)})


def _stored_rows(store: WorkStore, kind: str, wanted: set[str]) -> Iterator[tuple[str, _Row]]:
    waiting = set(wanted)
    for path in sorted((store.root / kind).rglob("[!.]*.safetensors")):
        if not waiting:
            return
        for key, row in _shard_rows(path, waiting):
            waiting.discard(key)
            yield key, row


def _shard_rows(path: Path, wanted: set[str]) -> list[tuple[str, _Row]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as shard:
            keys = json.loads((shard.metadata() or {})["keys"])
            found = [(row, key) for row, key in enumerate(keys) if key in wanted]
            names = shard.keys() if found else []
            arrays = {name: shard.get_tensor(name) for name in names}
    except (SafetensorError, KeyError):  # written by nothing of ours; what it should hold is computed anew
        return []
    return [(key, {name: array[row] for name, array in arrays.items()}) for row, key in found]
