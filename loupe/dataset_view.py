"""The examples of a run as its reader browses them: search by caption and attribute, counts by value and split.

It reads what `prepare` wrote and never writes. Pictures that it hands out can be asked for by their SHA-256.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

from loupe.atomic_io import read_records
from loupe.paths import SPLITS
from loupe.records import CaptionRecord
from loupe.run_files import stays_inside
from loupe.run_store import RunStore

NO_VALUE = "(none)"


def examples(store: RunStore) -> tuple[CaptionRecord, ...]:
    """Return all examples, train, val, test, each in the order of image_id; a split that cannot be read is left out."""
    found: list[CaptionRecord] = []
    for split in SPLITS:
        path = store.paths.dataset / split / "captions.jsonl"
        read = partial(read_records, path, CaptionRecord, made_by="prepare")
        found += [record for record in store.files.parsed(path, "captions", read) or () if stays_inside(record.file)]
    store.shown.update({record.sha256: store.paths.dataset / record.file for record in found})
    return tuple(found)


def train_photos(store: RunStore, image_ids: Collection[str]) -> dict[str, CaptionRecord]:
    """Return these examples of the train split by id, unknown ones left out; their pictures can be asked for then."""
    path = store.paths.dataset / "train" / "captions.jsonl"

    def by_id() -> dict[str, CaptionRecord]:
        return {record.image_id: record for record in read_records(path, CaptionRecord, made_by="prepare")}

    known: Mapping[str, CaptionRecord] = store.files.parsed(path, "captions by id", by_id) or {}
    found = {name: known[name] for name in image_ids if name in known and stays_inside(known[name].file)}
    store.shown.update({record.sha256: store.paths.dataset / record.file for record in found.values()})
    return found


def broken_photos(store: RunStore, records: Sequence[CaptionRecord]) -> dict[str, str]:
    """Return image id -> what is wrong, for those of the examples whose prepared picture is gone or has changed.

    It reads each file once, so ask only for those that will be seen.
    """
    folder, mend = store.paths.dataset, "Bring it back: dvc checkout --force data/dataset"
    store.files.hash_ahead(folder / record.file for record in records)
    found = {}
    for record in records:
        sha256 = store.files.sha256(folder / record.file)
        if sha256 != record.sha256:
            trouble = "is not there" if sha256 is None else "is not what was prepared"
            found[record.image_id] = f"{record.file} {trouble}. {mend}"
    return found


def matching(
    records: Iterable[CaptionRecord],
    *,
    query: str = "",
    splits: Collection[str] = (),
    attribute: str = "",
    values: Collection[str] = (),
) -> list[CaptionRecord]:
    """Return the examples whose id, caption and attributes hold every word of `query`, ignoring case.

    `splits` and, of one attribute, `values` narrow further; empty ones let all pass.
    """
    words = query.casefold().split()
    return [
        record
        for record in records
        if (not splits or record.split in splits)
        and (not attribute or not values or record.attributes.get(attribute, NO_VALUE) in values)
        and all(word in _haystack(record) for word in words)
    ]


def attributes_of(records: Iterable[CaptionRecord]) -> list[str]:
    """Return the attributes that tell examples apart: those with more than one value, the families aside."""
    found: dict[str, set[str]] = {}
    listed = list(records)
    for record in listed:
        for name, value in record.attributes.items():
            found.setdefault(name, set()).add(value)
    partly = {name for name in found if any(name not in record.attributes for record in listed)}
    return sorted(name for name, values in found.items() if name != "family" and (len(values) > 1 or name in partly))


def counts(records: Sequence[CaptionRecord], attribute: str) -> Mapping[str, Counter[str]]:
    """Return split -> value -> number of examples, for the splits that have examples."""
    by_split = {split: [record for record in records if record.split == split] for split in SPLITS}
    return {
        split: Counter(record.attributes.get(attribute, NO_VALUE) for record in own)
        for split, own in by_split.items()
        if own
    }


def _haystack(record: CaptionRecord) -> str:
    return " ".join((record.image_id, record.caption, *record.attributes.values())).casefold()
