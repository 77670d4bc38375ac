"""Sends Streamlit's own scripts and styles packed: a third of the bytes, for a reviewer who is not at this machine.

Streamlit leaves that to a proxy, because it would pack them anew for everyone; here each is packed once and kept.
Pictures and pages pass through.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path

import streamlit as st
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_KINDS = {".js": "text/javascript", ".css": "text/css"}
_HEADERS = {
    "Content-Encoding": "gzip",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
    # Their names hold a hash of what they are.
    "Cache-Control": "public, immutable, max-age=31536000",
}


class PackedCode:
    """ASGI middleware; only an address that is the name of one of Streamlit's own files is answered here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        folder = Path(st.__file__).parent / "static" / "static"
        self._files = {
            f"/static/{file.relative_to(folder).as_posix()}": file
            for file in folder.rglob("*")
            if file.suffix in _KINDS
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a script or style, or pass the request on."""
        file = self._files.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        if file is None or "gzip" not in Headers(scope=scope).get("accept-encoding", ""):
            await self._app(scope, receive, send)
            return
        content = await run_in_threadpool(_packed, file)
        await Response(content, media_type=_KINDS[file.suffix], headers=_HEADERS)(scope, receive, send)


@lru_cache(maxsize=512)
def _packed(file: Path) -> bytes:
    return gzip.compress(file.read_bytes(), compresslevel=6, mtime=0)
