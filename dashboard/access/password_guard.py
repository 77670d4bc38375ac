"""Lets in who knows the one password: asks for it, slows guessing down, and hands out a signed cookie."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import time
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from dashboard.access.password import PasswordHash
from dashboard.access.sign_in import SESSION_S, Session, Sessions, WrongTries
from dashboard.access.sign_in_page import (
    SIGN_IN,
    SIGN_OUT,
    is_own_origin,
    local_address,
    password_form,
    sign_out_form,
)

_MAX_FORM_BYTES = 8192
_LOG = logging.getLogger("loupe.access")


class PasswordGuard:
    """Guards a server with one password."""

    open_paths: frozenset[str] = frozenset()

    def __init__(self, password: PasswordHash) -> None:
        self._password = password
        # Of the hash, whose salt nobody outside knows: a new password, or a new salt, ends all sessions.
        self._sessions = Sessions(hmac.new(password.digest, b"loupe session cookie", hashlib.sha256).digest())
        self._tries = WrongTries()
        self._one_at_a_time = asyncio.Semaphore(1)

    def session(self, connection: HTTPConnection) -> Session | None:
        """Return the session of a request's cookie, or None when there is no valid one."""
        return self._sessions.find(connection.cookies.get(_cookie_name(connection), ""), now_s=time.time())

    def ask(self, connection: HTTPConnection, *, back: str) -> Response:
        """Return the page that asks for the password."""
        del connection
        return password_form(back=back)

    async def answer(self, request: Request) -> Response | None:
        """Answer the guard's own addresses; None for all others."""
        path, method = request.scope["path"], request.method
        if path not in (SIGN_IN, SIGN_OUT):
            return None
        if method == "POST":
            if not _from_own_page(request):
                return PlainTextResponse("This form must be sent from its own page.", status_code=403)
            return await self._sign_in(request) if path == SIGN_IN else self._sign_out(request)
        if path == SIGN_OUT:
            return sign_out_form()
        back = local_address(request.query_params.get("back", "/"))
        return RedirectResponse(back, status_code=303) if self.session(request) else password_form(back=back)

    async def _sign_in(self, request: Request) -> Response:
        fields = await _fields(request)
        back = local_address(fields.get("back", "/"))
        address = request.client.host if request.client else ""
        wait_s = self._tries.wait_s(address, now_s=time.monotonic())
        if wait_s > 0:
            said = f"Too many wrong passwords. Try again in {math.ceil(wait_s)} s."
            return password_form(back=back, said=said, status=429, wait_s=wait_s)
        self._tries.count(address, now_s=time.monotonic())
        async with self._one_at_a_time:
            right = await asyncio.to_thread(self._password.matches, fields.get("password", ""))
        if not right:
            _LOG.warning("A wrong password came from %s.", address)
            return password_form(back=back, said="That is not the password.")
        self._tries.forgive(address)
        answer = RedirectResponse(back, status_code=303, headers={"Cache-Control": "no-store"})
        answer.set_cookie(
            _cookie_name(request), self._sessions.begin(now_s=time.time()), max_age=int(SESSION_S), httponly=True,
            samesite="lax", secure=request.url.scheme == "https", path="/",
        )  # fmt: skip
        return answer

    def _sign_out(self, request: Request) -> Response:
        if session := self.session(request):
            self._sessions.end(session, now_s=time.time())
        # The pictures that this browser keeps, for a year as far as they are concerned, go too.
        headers = {"Cache-Control": "no-store", "Clear-Site-Data": '"cache"'}
        answer = RedirectResponse("/", status_code=303, headers=headers)
        answer.delete_cookie(_cookie_name(request), path="/", httponly=True, samesite="lax")
        return answer


def _cookie_name(connection: HTTPConnection) -> str:
    """Return a name with the port: cookies know none, and two reviews on one machine must not sign each other out."""
    server = connection.scope.get("server") or ("", 0)
    return f"loupe_session_{server[1] or 0}"


def _from_own_page(request: Request) -> bool:
    origin = request.headers.get("origin")
    return origin is None or is_own_origin(origin, request.headers.get("host"))


async def _fields(request: Request) -> Mapping[str, str]:
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _MAX_FORM_BYTES:
            return {}
    try:
        found = parse_qs(content.decode("utf-8"), keep_blank_values=True, max_num_fields=8)
    except ValueError:
        return {}
    return {name: values[0] for name, values in found.items()}
