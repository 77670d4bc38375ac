"""The routes that serve pictures, found by hash through the manifest: original bytes, and small previews of large ones.

No part of an address ever becomes a path, and bytes that differ from their hash are not served. Previews are made once
and kept in the work store by content; nothing among the results is written.
"""

from __future__ import annotations

import hashlib
import io
import re
from contextlib import suppress
from pathlib import Path

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dashboard.current_run import current_store
from loupe.workstore import WorkStore, fingerprint

PREVIEW_SIDE_PX = 256
_PREVIEW_QUALITY = 90
_PREVIEW_EFFORT = 0
"""Of the WebP encoder: 0 is three times as fast as the default, and the file is a third larger."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PNG = b"\x89PNG\r\n\x1a\n"
_GONE = "The picture's file is gone. Bring it back: dvc checkout data/samples"
_CHANGED = "The picture's file has changed. Bring it back: dvc checkout --force data/samples"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class PictureNotFoundError(Exception):
    """There is no such picture, or its file is not the one the manifest speaks of; the message is for the user."""


def picture_url(sha256: str) -> str:
    """Return the address of a picture's original bytes."""
    return f"/img/{sha256}"


def preview_url(sha256: str) -> str:
    """Return the address of a picture's preview, at most PREVIEW_SIDE_PX wide and high."""
    return f"/preview/{sha256}"


def serve_picture(request: Request) -> Response:
    """Answer /img/<SHA-256> with the picture's own bytes; anything that is not a known, unchanged picture is a 404."""
    try:
        content = _original(request.path_params["sha256"])
    except PictureNotFoundError as error:
        return _refusal(error)
    return Response(content, media_type="image/png", headers=_HEADERS)


def serve_preview(request: Request) -> Response:
    """Answer /preview/<SHA-256> with a small WebP of the picture."""
    sha256, keep = request.path_params["sha256"], None
    try:
        content = _kept_preview(sha256)
        if content is None:
            content = _shrunk(_original(sha256))
            # Kept once the answer is on its way: a flush to disk takes as long as the drawing.
            keep = BackgroundTask(_keep_preview, sha256, content)
    except PictureNotFoundError as error:
        return _refusal(error)
    return Response(content, media_type="image/webp", headers=_HEADERS, background=keep)


def _file(sha256: str) -> Path:
    file = current_store().sample_file(sha256) if _SHA256.fullmatch(sha256) else None
    if file is None:
        raise PictureNotFoundError("There is no such picture in this run.")
    return file


def _original(sha256: str) -> bytes:
    try:
        content = _file(sha256).read_bytes()
    except OSError:
        raise PictureNotFoundError(_GONE) from None
    if not content.startswith(_PNG) or hashlib.sha256(content).hexdigest() != sha256:
        raise PictureNotFoundError(_CHANGED)
    return content


def _kept_preview(sha256: str) -> bytes | None:
    """Return a preview that was made before, as long as its picture is there and the same."""
    found = current_store().files.sha256(_file(sha256))
    if found != sha256:
        raise PictureNotFoundError(_CHANGED if found else _GONE)
    kept = WorkStore(current_store().paths.work).get("thumbnails", _preview_key(sha256), ".webp")
    return kept.read_bytes() if kept else None


def _keep_preview(sha256: str, content: bytes) -> None:
    store = WorkStore(current_store().paths.work)
    # Where it cannot be kept (a folder that only reads, a full disk) it is made again the next time.
    with suppress(OSError), store.put("thumbnails", _preview_key(sha256), ".webp") as file:
        file.write_bytes(content)


def _preview_key(sha256: str) -> str:
    how = {"side_px": PREVIEW_SIDE_PX, "quality": _PREVIEW_QUALITY, "effort": _PREVIEW_EFFORT}
    return fingerprint({"picture": sha256, **how})


def _shrunk(original: bytes) -> bytes:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(original), formats=["PNG"]) as image:
            small = image.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        raise PictureNotFoundError("The picture cannot be decoded.") from None
    # The gap lets whole pixels be averaged first, which is ten times as fast and for 512 px all there is to do.
    small.thumbnail((PREVIEW_SIDE_PX, PREVIEW_SIDE_PX), Image.Resampling.LANCZOS, reducing_gap=1.0)
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=_PREVIEW_QUALITY, method=_PREVIEW_EFFORT)
    return buffer.getvalue()


def _refusal(error: PictureNotFoundError) -> Response:
    return PlainTextResponse(str(error), status_code=404, headers={"Cache-Control": "no-store"})


def refuse_path(request: Request) -> Response:
    """Answer every other address below /img and /preview; without it Streamlit would answer with its page."""
    del request
    return _refusal(PictureNotFoundError("Pictures are known by the SHA-256 of their bytes."))


PICTURE_ROUTES = (
    Route("/img/{sha256}", serve_picture, methods=["GET"]),
    Route("/preview/{sha256}", serve_preview, methods=["GET"]),
    Route("/img/{rest:path}", refuse_path),
    Route("/preview/{rest:path}", refuse_path),
)
