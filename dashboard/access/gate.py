"""The one gate before everything this server answers: pages, pictures, downloads, uploads, and the websocket.

What it does not know as public it refuses, so a route that is added later is guarded as well. Who may pass is a
guard's concern (password_guard.py, oidc_guard.py).
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from typing import Protocol
from urllib.parse import quote, unquote

from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit import config
from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

from dashboard.access.oidc_guard import BACK_COOKIE
from dashboard.access.sign_in import Session
from dashboard.access.sign_in_page import is_own_origin, local_address

HEALTH = "/_stcore/health"
"""Says only that the server is up; monitors ask it."""


class Guard(Protocol):
    """Decides who may pass."""

    open_paths: frozenset[str]
    """Addresses that the sign-in itself needs."""

    def session(self, connection: HTTPConnection) -> Session | None:
        """Return the session of a request, or None when it may not pass."""

    def ask(self, connection: HTTPConnection, *, back: str) -> Response:
        """Return the page that asks to sign in and then leads to `back`."""

    async def answer(self, request: Request) -> Response | None:
        """Answer the guard's own addresses; None for all others."""


class Gate:
    """ASGI middleware around the whole server.

    Without a guard it lets in this machine alone, unless `open_to_all`.
    """

    is_up = False
    """Whether this process has a gate: the pages refuse to be served without one when a guard is asked for."""

    def __init__(self, app: ASGIApp, *, guard: Guard | None, open_to_all: bool) -> None:
        self._app, self._guard, self._open_to_all = app, guard, open_to_all
        self._open: set[tuple[HTTPConnection, asyncio.Timeout]] = set()
        """The websockets of pages that are open, and what ends each."""
        Gate.is_up = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answer = self._refusal(request) or await self._ask(request)
        await (answer or self._app)(scope, receive, send)

    async def _ask(self, request: Request) -> Response | None:
        """Return what the guard has to say instead of the server; None when the request may pass."""
        # Not request.url: that is put together with the Host header, which may hold a path of its own.
        path, guard = request.scope["path"], self._guard
        if guard is None or path == HEALTH:
            return None
        if (answer := await guard.answer(request)) is not None:
            self._close_ended(guard)
            return answer
        if guard.session(request) is not None:
            return _led_back(request)
        if path in guard.open_paths:
            return None
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return guard.ask(request, back=local_address(_asked_for(request)))
        return PlainTextResponse("Sign in first.", status_code=401, headers={"Cache-Control": "no-store"})

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        session = self._guard.session(connection) if self._guard else None
        if self._refusal(connection) or (self._guard and session is None):
            await receive()
            # Before it is accepted, a closed websocket is an HTTP 403 to the browser.
            await send({"type": "websocket.close", "code": 1008, "reason": "Sign in first."})
            return
        if session is None:
            await self._app(scope, receive, send)
            return
        try:
            # A page that stays open must not outlive its session.
            async with asyncio.timeout(session.expires_s - time.time()) as limit:
                self._open.add((connection, limit))
                await self._app(scope, receive, send)
        except TimeoutError:
            if not limit.expired():
                raise
            await send({"type": "websocket.close", "code": 1008, "reason": "The session has ended."})
        finally:
            self._open.discard((connection, limit))

    def _close_ended(self, guard: Guard) -> None:
        """End the open pages of a session that was just signed out."""
        for connection, limit in tuple(self._open):
            if guard.session(connection) is None:
                limit.reschedule(asyncio.get_running_loop().time())

    def _refusal(self, connection: HTTPConnection) -> Response | None:
        host = connection.headers.get("host")
        if not is_host_allowed(host):
            # A foreign page may point its own name at this machine (DNS rebinding).
            return PlainTextResponse(
                "This server is not known by that name. Its owner can allow it: --server.allowedHosts NAME",
                status_code=400,
            )
        if connection.scope["type"] == "websocket" and not _is_allowed_origin(connection):
            # Streamlit would ask a server on the internet for this machine's address before it refuses.
            return PlainTextResponse("A page of another server may not speak with this one.", status_code=403)
        if self._guard is None and not self._open_to_all and not _is_this_machine(connection):
            return PlainTextResponse(
                "This review has no password and is shown on its own machine only.", status_code=403
            )
        return None


def _led_back(request: Request) -> Response | None:
    """Lead to the page that was asked for before the provider's sign-in, which always ends at '/'."""
    back = local_address(unquote(request.cookies.get(BACK_COOKIE, "/")))
    if request.scope["path"] != "/" or back == "/":
        return None
    answer = RedirectResponse(back, status_code=303)
    answer.delete_cookie(BACK_COOKIE, path="/")
    return answer


def _asked_for(request: Request) -> str:
    path, query = quote(request.scope["path"]), request.scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def _is_allowed_origin(connection: HTTPConnection) -> bool:
    origin = connection.headers.get("origin")
    if origin is None or origin in config.get_option("server.corsAllowedOrigins"):
        return True
    return is_own_origin(origin, connection.headers.get("host"))


def _is_this_machine(connection: HTTPConnection) -> bool:
    try:
        return connection.client is not None and ipaddress.ip_address(connection.client.host).is_loopback
    except ValueError:
        return False
