"""The bytes of pictures, found by hash through the manifest: the original ones, and small previews of large ones.

Bytes that differ from their hash are never returned. Previews are made once and kept in the work store by content;
nothing among the results is written.
"""

from __future__ import annotations

import hashlib
import io
import re
import time
from contextlib import suppress
from pathlib import Path

from loupe.run_store import RunStore
from loupe.workstore import WorkStore, fingerprint

PREVIEW_SIDE_PX = 256
_QUALITY = 95
_EFFORT = 0
"""Of the WebP encoder: 0 is three times as fast as the default, and the file is a third larger."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PNG = b"\x89PNG\r\n\x1a\n"
_GONE = "The picture's file is gone. Bring it back: dvc checkout data/samples"
_CHANGED = "The picture's file has changed. Bring it back: dvc checkout --force data/samples"


class PictureNotFoundError(Exception):
    """There is no such picture, or its file is not the one the manifest speaks of; the message is for the user."""


def original(store: RunStore, sha256: str) -> bytes:
    """Return a picture's own bytes."""
    try:
        content = _file(store, sha256).read_bytes()
    except OSError:
        raise PictureNotFoundError(_GONE) from None
    if not content.startswith(_PNG) or hashlib.sha256(content).hexdigest() != sha256:
        raise PictureNotFoundError(_CHANGED)
    return content


def kept_preview(store: RunStore, sha256: str) -> bytes | None:
    """Return a preview that was made before, as long as its picture is there and the same."""
    found = store.files.sha256(_file(store, sha256))
    if found != sha256:
        raise PictureNotFoundError(_CHANGED if found else _GONE)
    kept = WorkStore(store.paths.work).get("thumbnails", _key(sha256), ".webp")
    return kept.read_bytes() if kept else None


def draw_preview(store: RunStore, sha256: str) -> bytes:
    """Return a WebP of the picture, at most PREVIEW_SIDE_PX wide and high."""
    from PIL import Image, UnidentifiedImageError

    content = original(store, sha256)
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            small = image.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        raise PictureNotFoundError("The picture cannot be decoded.") from None
    # The gap lets whole pixels be averaged first, which is ten times as fast and for 512 px all there is to do.
    small.thumbnail((PREVIEW_SIDE_PX, PREVIEW_SIDE_PX), Image.Resampling.LANCZOS, reducing_gap=1.0)
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=_QUALITY, method=_EFFORT)
    return buffer.getvalue()


def keep_preview(store: RunStore, sha256: str, content: bytes) -> None:
    """Keep a preview for the next time; where that cannot be (a full disk) it is drawn again then."""
    with suppress(OSError), WorkStore(store.paths.work).put("thumbnails", _key(sha256), ".webp") as file:
        file.write_bytes(content)


class LastRequest:
    """When a reviewer last asked for something: what can be done later waits until nobody waits."""

    def __init__(self) -> None:
        self._at_s = time.monotonic()

    def note(self) -> None:
        """Note that one asks now."""
        self._at_s = time.monotonic()

    def ago_s(self) -> float:
        """Return the seconds since."""
        return time.monotonic() - self._at_s


LAST_REQUEST = LastRequest()


def _file(store: RunStore, sha256: str) -> Path:
    file = store.sample_file(sha256) if _SHA256.fullmatch(sha256) else None
    if file is None:
        raise PictureNotFoundError("There is no such picture in this run.")
    return file


def _key(sha256: str) -> str:
    how = {"side_px": PREVIEW_SIDE_PX, "quality": _QUALITY, "effort": _EFFORT}
    return fingerprint({"picture": sha256, **how})
