"""The routes that serve pictures by the hash of their bytes. No part of an address ever becomes a path.

Which file it is, and whether its bytes are still those, is pictures.py's concern.
"""

from __future__ import annotations

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dashboard.current_run import current_store
from dashboard.pictures import (
    LAST_REQUEST,
    PictureNotFoundError,
    draw_preview,
    keep_preview,
    kept_preview,
    original,
)

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def picture_url(sha256: str) -> str:
    """Return the address of a picture's original bytes."""
    return f"/img/{sha256}"


def preview_url(sha256: str) -> str:
    """Return the address of a picture's preview, at most PREVIEW_SIDE_PX wide and high."""
    return f"/preview/{sha256}"


def serve_picture(request: Request) -> Response:
    """Answer /img/<SHA-256> with the picture's own bytes; anything that is not a known, unchanged picture is a 404."""
    LAST_REQUEST.note()
    try:
        content = original(current_store(), request.path_params["sha256"])
    except PictureNotFoundError as error:
        return _refusal(error)
    return Response(content, media_type="image/png", headers=_HEADERS)


def serve_preview(request: Request) -> Response:
    """Answer /preview/<SHA-256> with a small WebP of the picture."""
    LAST_REQUEST.note()
    store, sha256, keep = current_store(), request.path_params["sha256"], None
    try:
        content = kept_preview(store, sha256)
        if content is None:
            content = draw_preview(store, sha256)
            # Kept once the answer is on its way: a flush to disk takes as long as the drawing.
            keep = BackgroundTask(keep_preview, store, sha256, content)
    except PictureNotFoundError as error:
        return _refusal(error)
    return Response(content, media_type="image/webp", headers=_HEADERS, background=keep)


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
