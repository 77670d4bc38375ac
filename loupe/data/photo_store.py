"""Prepares photos in parallel and keeps each result in the work store, keyed by the photo's bytes and the transform.

Results come in the order asked for and do not depend on the number of workers; memory does not grow with the photos.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from loupe.atomic_io import sha256_file
from loupe.data.images import UnusableImageError, encode_png, normalise
from loupe.data.items import SourceItem
from loupe.data.perceptual_hash import perceptual_hash
from loupe.records import Rejection
from loupe.workstore import WorkStore, fingerprint, library_versions, source_fingerprint

_KIND = "prepared-photo"
_IN_FLIGHT_PER_WORKER = 4
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """What is kept beside a prepared picture, so that it need not be opened again."""

    sha256: str
    """Of the prepared PNG's bytes."""
    source_width_px: int
    source_height_px: int
    perceptual_hash: int | None
    """None for a blank picture."""
    notes: list[str]


@dataclass(frozen=True, slots=True)
class PreparedPhoto:
    """An example whose picture lies in the work store."""

    item: SourceItem
    stored: Path
    facts: PhotoFacts
    reused: bool


class PhotoPreparer:
    """Turns one item's photo into a picture in the work store, or says why it cannot."""

    def __init__(self, *, resolution: int, store: WorkStore) -> None:
        folder = Path(__file__).parent
        self._resolution = resolution
        self._store = store
        self._transform = {
            "resolution": resolution,
            "code": source_fingerprint(folder / "images.py", folder / "perceptual_hash.py"),
            "libraries": library_versions("pillow", "numpy"),
        }

    def __call__(self, item: SourceItem) -> PreparedPhoto | Rejection:
        """Prepare one photo, or take it from the store when the same bytes were prepared the same way before."""
        if not item.caption.strip():
            return Rejection(image_id=item.image_id, reason="empty caption", detail="write one, or remove the photo")
        assert item.photo is not None, "rows without photo are set aside before"
        try:
            content = item.photo.read_bytes()
        except (PermissionError, IsADirectoryError, FileNotFoundError) as error:
            return Rejection(image_id=item.image_id, reason="unreadable", detail=str(error.strerror))
        source_sha256 = hashlib.sha256(content).hexdigest()
        key = fingerprint({"source": source_sha256, **self._transform})
        facts = self._stored_facts(key)
        if facts is not None:
            return PreparedPhoto(item=item, stored=self._store.path(_KIND, key, ".png"), facts=facts, reused=True)
        try:
            facts = self._prepare(key, content)
        except UnusableImageError as error:
            return Rejection(image_id=item.image_id, reason=error.reason, detail=error.detail)
        return PreparedPhoto(item=item, stored=self._store.path(_KIND, key, ".png"), facts=facts, reused=False)

    def _prepare(self, key: str, content: bytes) -> PhotoFacts:
        normalised = normalise(content, resolution=self._resolution)
        png = encode_png(normalised.image)
        facts = PhotoFacts(
            sha256=hashlib.sha256(png).hexdigest(),
            source_width_px=normalised.source_width_px,
            source_height_px=normalised.source_height_px,
            perceptual_hash=perceptual_hash(normalised.image),
            notes=list(normalised.notes),
        )
        with self._store.put(_KIND, key, ".png") as path:
            path.write_bytes(png)
        with self._store.put(_KIND, key, ".json") as path:
            path.write_text(json.dumps(asdict(facts)), encoding="utf-8")
        return facts

    def _stored_facts(self, key: str) -> PhotoFacts | None:
        """Return what is stored, or None where nothing is or where the picture is not what its facts say."""
        facts_path, png = self._store.get(_KIND, key, ".json"), self._store.get(_KIND, key, ".png")
        if facts_path is None or png is None:
            return None
        try:
            facts = PhotoFacts(**json.loads(facts_path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            return None
        return facts if sha256_file(png) == facts.sha256 else None


def prepare_photos(
    items: Iterable[SourceItem], preparer: PhotoPreparer, *, workers: int
) -> Iterator[PreparedPhoto | Rejection]:
    """Yield one result per item, in the items' order, computed by `workers` threads.

    Threads, since Pillow lets go of the interpreter while it decodes, resizes and encodes.
    """
    with warnings.catch_warnings():
        # Photos above Pillow's warning limit are refused by name in images.py.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield from bounded_map(preparer, items, workers=workers)


def bounded_map(function: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Iterator[Result]:
    """Map in threads, in order, with only a few items per worker begun and not yet taken."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= workers * _IN_FLIGHT_PER_WORKER:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
