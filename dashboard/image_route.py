"""The routes that serve pictures, found by hash through the manifest: original bytes, and small previews of large ones.

No part of an address ever becomes a path, and bytes that differ from their hash are not served. Previews are made once
and kept in the work store by content; nothing among the results is written.
"""

from __future__ import annotations

import hashlib
import io
import re

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dashboard.current_run import current_store
from loupe.workstore import WorkStore, fingerprint

PREVIEW_SIDE_PX = 256
_PREVIEW_QUALITY = 90
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PNG = b"\x89PNG\r\n\x1a\n"
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
    try:
        content = _preview(request.path_params["sha256"])
    except PictureNotFoundError as error:
        return _refusal(error)
    return Response(content, media_type="image/webp", headers=_HEADERS)


def _original(sha256: str) -> bytes:
    file = current_store().sample_file(sha256) if _SHA256.fullmatch(sha256) else None
    if file is None:
        raise PictureNotFoundError("There is no such picture in this run.")
    try:
        content = file.read_bytes()
    except OSError:
        raise PictureNotFoundError("The picture's file is gone. Bring it back: dvc checkout data/samples") from None
    if not content.startswith(_PNG) or hashlib.sha256(content).hexdigest() != sha256:
        raise PictureNotFoundError("The picture's file has changed. Bring it back: dvc checkout --force data/samples")
    return content


def _preview(sha256: str) -> bytes:
    original = _original(sha256)
    store = WorkStore(current_store().paths.work)
    key = fingerprint({"picture": sha256, "side_px": PREVIEW_SIDE_PX, "quality": _PREVIEW_QUALITY})
    kept = store.get("thumbnails", key, ".webp")
    if kept:
        return kept.read_bytes()
    content = _shrunk(original)
    with store.put("thumbnails", key, ".webp") as file:
        file.write_bytes(content)
    return content


def _shrunk(original: bytes) -> bytes:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(original), formats=["PNG"]) as image:
            small = image.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        raise PictureNotFoundError("The picture cannot be decoded.") from None
    small.thumbnail((PREVIEW_SIDE_PX, PREVIEW_SIDE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=_PREVIEW_QUALITY)
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
