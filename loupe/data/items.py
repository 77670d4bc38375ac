"""What every source hands over: one record per photo with its caption and attributes, whatever the source looked like.

It reads no file. Ids become file names, so the rules for a safe id are here as well.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from loupe.records import MalformedRow

MAX_LISTED = 20
_UNSAFE = re.compile(r"[/\\:*?\"<>|\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_ID_BYTES = 150


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One possible example."""

    image_id: str
    photo: Path | None
    """None when the row's photo is not there."""
    caption: str
    """May be empty; an empty caption is found and named later, with the photos that cannot be used."""
    attributes: dict[str, str] = field(default_factory=dict)
    """Non-empty values among article_type, colour, gender, season, usage, year, brand, family."""


@dataclass(frozen=True, slots=True)
class SourceListing:
    """Everything a source holds, in the source's own order (file sources: by id)."""

    items: tuple[SourceItem, ...]
    n_rows: int
    """Rows or files before any filter."""
    malformed_rows: tuple[MalformedRow, ...] = ()


def is_safe_id(image_id: str) -> bool:
    """Say whether an id can name a file on every platform and can never lead out of its folder."""
    if not image_id or _UNSAFE.search(image_id) or image_id != image_id.strip().strip("."):
        return False
    return len(image_id.encode("utf-8")) <= _MAX_ID_BYTES


def colliding_ids(named: Iterable[tuple[str, str]]) -> list[str]:
    """Return one line per id that occurs more than once among (id, place) pairs, with all its places.

    Case and Unicode form are ignored: on macOS and Windows such ids would be one file.
    """
    places = defaultdict(list)
    for image_id, place in named:
        places[unicodedata.normalize("NFC", image_id).casefold()].append((image_id, place))
    return [f"{group[0][0]}: {', '.join(place for _, place in group)}" for group in places.values() if len(group) > 1]


def shortened(problems: list[str]) -> list[str]:
    """Return the first problems, and how many more there are."""
    if len(problems) <= MAX_LISTED:
        return problems
    return [*problems[:MAX_LISTED], f"and {len(problems) - MAX_LISTED} more"]
