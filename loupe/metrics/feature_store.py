"""What an extractor said about each item, computed once and kept in the work store by the item's hash.

The store's kind names everything else that decided the bytes (weights, resize, code, libraries, device), so a changed
extractor never meets old features. A file that is not, byte for byte, what was stored counts as absent. It knows no
extractor, and nothing of images or texts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loupe.errors import PipelineError
from loupe.progress import track
from loupe.workstore import WorkStore, fingerprint

ROWS_PER_SHARD = 512
"""A shard is one file of the store; what is done of a killed stage is lost up to one shard."""

Compute = Callable[[Sequence[Any]], Mapping[str, NDArray]]
"""Items of one batch -> arrays with one row per item."""


class NotFiniteError(PipelineError):
    """An extractor returned NaN or infinity; nothing of that batch is stored."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many distinct items had to be computed, and how many were there."""

    computed: int
    reused: int


def complete_arrays(
    store: WorkStore,
    kind: str,
    keys: Sequence[str],
    *,
    read: Callable[[int], Any],
    load: Callable[[], Compute],
    batch_size: int,
    what: str,
    unit: str = "image",
    name: Callable[[int], str] | None = None,
) -> Counts:
    """Compute and store the arrays of the items that the store lacks; it holds one shard at a time in memory.

    `keys` are the items' hashes (they may repeat), `read(i)` opens item i, `load()` yields the function to compute
    with and is called only when something is missing; `name(i)` is what messages call item i, by default its hash.
    Raises NotFiniteError for NaN or infinity.
    """
    known = stored_keys(store, kind, keys)
    first_index = {key: index for index, key in reversed(list(enumerate(keys)))}
    missing = [key for key in dict.fromkeys(keys) if key not in known]
    if missing:
        called = name or (lambda index: keys[index][:12])
        computed = _checked(
            _computed_batches([(k, first_index[k]) for k in missing], read, load(), batch_size), called, what
        )
        for shard in _shards(track(computed, total=len(missing), what=what, unit=unit)):
            _write_shard(store, kind, shard)
    return Counts(computed=len(missing), reused=len(known))


def stored_arrays(store: WorkStore, kind: str, keys: Sequence[str]) -> dict[str, NDArray]:
    """Return name -> array with a row per item; KeyError when the store lacks one. Nothing else stays in memory."""
    places: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    waiting, arrays = set(places), {}
    for path in _shard_paths(store, kind):
        if not waiting:
            break
        rows, tensors = _shard_rows(path, waiting)
        of_places = [(place, row) for key, row in rows.items() for place in places[key]]
        for name, tensor in tensors.items():
            array = arrays.setdefault(name, np.empty((len(keys), *tensor.shape[1:]), tensor.dtype))
            array[[place for place, _ in of_places]] = tensor[[row for _, row in of_places]]
        waiting -= set(rows)
    if waiting:
        raise KeyError(f"{kind} lacks {len(waiting)} of {len(places)} items")
    return {name: arrays[name] for name in sorted(arrays)}


def stored_keys(store: WorkStore, kind: str, keys: Iterable[str]) -> set[str]:
    """Return those of the keys whose arrays the store has."""
    waiting, found = set(keys), set()
    for path in _shard_paths(store, kind):
        if not waiting:
            break
        found |= set(_rows_of_shard(path, waiting))
        waiting -= found
    return found


_Row = dict[str, NDArray]


_Batch = tuple[Sequence[tuple[str, int]], Mapping[str, NDArray]]
"""(key, index) of its items, and arrays with a row for each."""


def _computed_batches(
    items: Sequence[tuple[str, int]], read: Callable[[int], Any], compute: Compute, batch_size: int
) -> Iterator[_Batch]:
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        opened = [read(index) for _, index in batch]
        padding = [opened[-1]] * (
            batch_size - len(batch)
        )  # kernels round by batch shape: it must not depend on the rest
        yield batch, {name: array[: len(batch)] for name, array in compute(opened + padding).items()}


def _checked(batches: Iterator[_Batch], called: Callable[[int], str], what: str) -> Iterator[tuple[str, _Row]]:
    for batch, arrays in batches:
        for name, array in arrays.items():
            bad = ~np.isfinite(array).reshape(len(batch), -1).all(axis=1)
            if bad.any():
                where = ", ".join(called(index) for (_, index), is_bad in zip(batch, bad, strict=True) if is_bad)
                raise NotFiniteError(
                    f"{what}: NaN or infinity in {name} for {where}. Every number must be finite; the weights may be "
                    "damaged. Fetch them again, or take that extractor out of evaluate.extractors."
                )
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
    metadata = {"keys": json.dumps(keys)}
    metadata["sha256"] = _sha256(metadata["keys"], arrays)
    with store.put(kind, fingerprint({"keys": keys}), ".safetensors") as temporary:
        save_file(arrays, temporary, metadata=metadata)


def _sha256(keys: str, arrays: Mapping[str, NDArray]) -> str:
    digest = hashlib.sha256(keys.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _shard_paths(store: WorkStore, kind: str) -> list[Path]:
    return sorted((store.root / kind).rglob("[!.]*.safetensors"))


def _rows_of_shard(path: Path, wanted: set[str]) -> dict[str, int]:
    """Return which of the wanted keys lie in which row; a damaged shard has none, so they are computed anew."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as shard:
            keys = json.loads((shard.metadata() or {})["keys"])
            rows = {key: row for row, key in enumerate(keys) if key in wanted}
    except (SafetensorError, KeyError, TypeError, ValueError):
        return {}
    state = path.stat()
    return rows if rows and _is_whole(path, (state.st_ino, state.st_mtime_ns, state.st_size)) else {}


@cache
def _is_whole(path: Path, _state: tuple[int, int, int]) -> bool:
    """Whether a shard holds what was written; a file in the same state is not hashed again in this process."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as shard:
            arrays = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 (not a mapping)
            metadata = shard.metadata()
            return _sha256(metadata["keys"], arrays) == metadata["sha256"]
    except (SafetensorError, KeyError, TypeError, ValueError):  # before hashes were kept, or no array at all
        return False


def _shard_rows(path: Path, wanted: set[str]) -> tuple[dict[str, int], dict[str, NDArray]]:
    """Return which of the wanted keys lie in which row, and the shard's arrays when there are any."""
    from safetensors import safe_open

    rows = _rows_of_shard(path, wanted)
    if not rows:
        return {}, {}
    with safe_open(path, framework="np") as shard:
        names = shard.keys()
        return rows, {name: shard.get_tensor(name) for name in names}
