"""Lets in the people of a list who sign in with an OpenID Connect provider, through Streamlit's own sign-in.

Streamlit speaks with the provider and signs the cookie; this reads that cookie for every route, as Streamlit itself
does for its pages alone, and compares the account with the list. A provider vouches for who someone is, not for
whether they may look: without a list, everyone with an account there would be let in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from itsdangerous import URLSafeTimedSerializer
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from streamlit.auth_util import get_cookie_with_chunks, is_authlib_installed
from streamlit.user_info import AUTH_LOGIN_ENDPOINT, AUTH_LOGOUT_ENDPOINT, generate_login_redirect_url
from streamlit.web.server.starlette.starlette_app_utils import decode_signed_value
from streamlit.web.server.starlette.starlette_server_config import USER_COOKIE_NAME

from dashboard.access.sign_in import SESSION_S, Session
from dashboard.access.sign_in_page import SIGN_IN, SIGN_OUT, local_address, provider_links
from loupe.errors import PipelineError, problems_message

BACK_COOKIE = "loupe_back"
_BACK_S = 600
_CALLBACK = "/oauth2callback"
_NEEDED = ("client_id", "client_secret", "server_metadata_url")
_MIN_SECRET_LENGTH = 32


class OidcGuard:
    """Guards a server with the accounts of a provider."""

    open_paths: frozenset[str] = frozenset({AUTH_LOGIN_ENDPOINT, AUTH_LOGOUT_ENDPOINT, _CALLBACK})

    def __init__(self, auth: Mapping[str, Any], reviewers: Sequence[str]) -> None:
        """Take [auth] and [loupe].reviewers of secrets.toml; PipelineError with all that is wrong with them."""
        self._providers = _providers(auth)
        if problems := _problems(auth, reviewers, self._providers):
            raise PipelineError(problems_message(".streamlit/secrets.toml", problems))
        self._secret = str(auth["cookie_secret"])
        self._subjects = frozenset(name for name in reviewers if name.startswith("sub:"))
        self._addresses = frozenset(_folded(name) for name in reviewers if not name.startswith("sub:"))

    def session(self, connection: HTTPConnection) -> Session | None:
        """Return the session of a request whose account is on the list, or None."""
        account = self._account(connection)
        if account is None or not self._is_listed(account):
            return None
        return Session(expires_s=self._began_s(connection) + SESSION_S, name=str(account.get("sub", "")))

    def ask(self, connection: HTTPConnection, *, back: str) -> Response:
        """Return the page with the way to each provider; to an account that is not on the list it says so."""
        account = self._account(connection)
        if account is None:
            return provider_links(self._providers, back=back)
        named = f"{account.get('email') or 'an account without e-mail address'} (sub:{account.get('sub', '')})"
        said = f"You are signed in as {named}, which is not on this review's list. Ask its owner, or take another one."
        return provider_links(self._providers, back=back, said=said, status=403)

    async def answer(self, request: Request) -> Response | None:
        """Answer the guard's own addresses; None for all others."""
        path = request.scope["path"]
        if path == SIGN_OUT:
            return RedirectResponse(AUTH_LOGOUT_ENDPOINT, status_code=303)
        if path == SIGN_IN:
            return self.ask(request, back=local_address(request.query_params.get("back", "/")))
        provider = path.removeprefix(f"{SIGN_IN}/")
        if provider not in self._providers:
            return None
        # Streamlit always comes back to its first page; the cookie remembers which one was asked for.
        answer = RedirectResponse(generate_login_redirect_url(provider), status_code=303)
        back = local_address(request.query_params.get("back", "/"))
        answer.set_cookie(BACK_COOKIE, quote(back, safe=""), max_age=_BACK_S, httponly=True, samesite="lax", path="/")
        return answer

    def _account(self, connection: HTTPConnection) -> dict[str, Any] | None:
        """Return the claims of Streamlit's cookie when its signature is right and not older than a session."""

        def read(name: str) -> bytes | None:
            value = connection.cookies.get(name)
            return decode_signed_value(self._secret, name, value, max_age_days=SESSION_S / 86400) if value else None

        content = get_cookie_with_chunks(read, USER_COOKIE_NAME)
        try:
            account = json.loads(content) if content else None
        except ValueError:
            return None
        return account if isinstance(account, dict) and account.get("is_logged_in") is True else None

    def _began_s(self, connection: HTTPConnection) -> float:
        """Return when the cookie that _account believes was signed, in seconds since the epoch."""
        cookies = URLSafeTimedSerializer(self._secret, salt=USER_COOKIE_NAME)
        _, signed = cookies.loads(connection.cookies[USER_COOKIE_NAME], return_timestamp=True)
        return float(signed.timestamp())

    def _is_listed(self, account: Mapping[str, Any]) -> bool:
        if "*" in self._addresses or f"sub:{account.get('sub', '')}" in self._subjects:
            return True
        email = _folded(str(account.get("email") or ""))
        # An address that the provider has not checked may be typed in by anyone.
        checked = "@" in email and account.get("email_verified") is True
        return checked and not self._addresses.isdisjoint({email, f"@{email.rpartition('@')[2]}"})


def _folded(address: str) -> str:
    """Return an e-mail address as it is compared; only ASCII loses its case, into which other letters would fold."""
    return address.lower() if address.isascii() else address


def _providers(auth: Mapping[str, Any]) -> tuple[str, ...]:
    named = tuple(name for name, section in auth.items() if isinstance(section, Mapping) and "client_id" in section)
    return ("default", *named) if "client_id" in auth else named


def _problems(auth: Mapping[str, Any], reviewers: Sequence[str], providers: Sequence[str]) -> list[str]:
    found = []
    if not is_authlib_installed():
        found.append("[auth] needs the package Authlib: pip install Authlib")
    if not str(auth.get("redirect_uri", "")).endswith(_CALLBACK):
        found.append(f"[auth].redirect_uri must be this review's own address followed by {_CALLBACK}")
    if len(str(auth.get("cookie_secret", ""))) < _MIN_SECRET_LENGTH:
        found.append(f"[auth].cookie_secret must be at least {_MIN_SECRET_LENGTH} random characters")
    if not providers:
        found.append(f"[auth] names no provider: give {', '.join(_NEEDED)}")
    for name in providers:
        section = auth if name == "default" else auth[name]
        missing = [key for key in _NEEDED if not section.get(key)]
        if missing:
            found.append(f"[auth{'' if name == 'default' else f'.{name}'}] has no {', '.join(missing)}")
        if "_" in name:
            found.append(f"[auth.{name}]: Streamlit takes no provider name with an underscore")
    if not reviewers or not all(isinstance(name, str) and _is_entry(name) for name in reviewers):
        found.append(
            "[loupe].reviewers must list who may look: e-mail addresses, '@domain' for all of one, 'sub:...' for an "
            "account by its subject, or '*' for everyone whom the provider lets in"
        )
    return found


def _is_entry(name: str) -> bool:
    return name == "*" or (name.startswith("sub:") and len(name) > 4) or ("@" in name[:-1] and " " not in name)
