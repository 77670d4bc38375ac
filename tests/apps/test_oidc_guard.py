"""Which cookies of Streamlit's sign-in open a review; the sign-in itself: test_shared_server.py."""

from __future__ import annotations

import json
import time
from hashlib import sha256
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from streamlit.auth_util import set_cookie_with_chunks
from streamlit.web.server.starlette.starlette_app_utils import create_signed_value
from streamlit.web.server.starlette.starlette_server_config import USER_COOKIE_NAME

from dashboard.access.oidc_guard import OidcGuard
from dashboard.access.sign_in import SESSION_S

SECRET = "k" * 40
PROVIDER = {
    "client_id": "loupe", "client_secret": "s",
    "server_metadata_url": "https://accounts.example.org/.well-known/openid-configuration",
}  # fmt: skip
ANN = {"is_logged_in": True, "sub": "1", "email": "ann@example.org", "email_verified": True}


@pytest.fixture
def guard() -> OidcGuard:
    auth = {"redirect_uri": "https://review.example.org/oauth2callback", "cookie_secret": SECRET}
    return OidcGuard({**auth, "google": PROVIDER, "own": PROVIDER}, ["ann@example.org"])


def connection(cookies: dict[str, str]) -> HTTPConnection:
    header = "; ".join(f"{name}={value}" for name, value in cookies.items()).encode("latin-1")
    return HTTPConnection({"type": "http", "headers": [(b"cookie", header)], "path": "/"})


def cookie(claims: Any, *, secret: str = SECRET, name: str = USER_COOKIE_NAME) -> dict[str, str]:
    return {USER_COOKIE_NAME: create_signed_value(secret, name, json.dumps(claims)).decode("latin-1")}


def test_the_cookie_of_a_listed_account_opens_it(guard: OidcGuard) -> None:
    assert guard.session(connection(cookie(ANN))) is not None


@pytest.mark.parametrize(
    "cookies",
    [
        {}, {USER_COOKIE_NAME: ""}, {USER_COOKIE_NAME: json.dumps(ANN)}, cookie(ANN, secret="another" * 8),
        cookie(ANN, name="_streamlit_user_tokens"), cookie({**ANN, "is_logged_in": False}), cookie({**ANN, "email": 7}),
        cookie({**ANN, "is_logged_in": "true"}), cookie([ANN]), cookie("chunks-2"), cookie({}),
        cookie({**ANN, "email_verified": "true"}),
    ],
)  # fmt: skip
def test_any_other_cookie_does_not(guard: OidcGuard, cookies: dict[str, str]) -> None:
    assert guard.session(connection(cookies)) is None


def test_a_cookie_opens_it_for_one_session_only(guard: OidcGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit itself would take it for thirty days."""
    old = connection(cookie(ANN))
    now = time.time()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + SESSION_S - 60)
    assert guard.session(old) is not None
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + SESSION_S + 60)
    assert guard.session(old) is None


def test_a_page_that_stays_open_ends_with_the_cookie_and_not_a_session_later(
    guard: OidcGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = int(time.time())
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: signed)
    old = connection(cookie(ANN))
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: signed + SESSION_S - 60)
    assert guard.session(old).expires_s == signed + SESSION_S


@pytest.mark.parametrize(
    ("claims", "may"),
    [
        ({"email": "ANN@Example.org"}, True),
        ({"email": "an\u212a@example.org"}, False),
        ({"email": "eve@la\u212a.example.org"}, False),
        ({"email": "sub:Seven@example.org"}, False),
        ({"sub": "Seven", "email": ""}, True),
        ({"sub": "seven", "email": ""}, False),
    ],
)
def test_addresses_are_the_same_in_any_case_and_subjects_to_the_letter(claims: dict[str, str], may: bool) -> None:
    """OpenID Connect Core 1.0, section 2: a subject is case-sensitive. U+212A folds into the letter k."""
    auth = {"redirect_uri": "https://review.example.org/oauth2callback", "cookie_secret": SECRET, **PROVIDER}
    listed = ["ann@example.org", "ank@example.org", "@lak.example.org", "sub:Seven", "sub:Seven@example.org"]
    found = OidcGuard(auth, listed).session(connection(cookie({**ANN, **claims})))
    assert (found is not None) is may


def test_an_account_with_many_claims_comes_in_several_cookies(guard: OidcGuard) -> None:
    parts: dict[str, str] = {}

    def keep(name: str, value: str) -> None:
        parts[name] = create_signed_value(SECRET, name, value).decode("latin-1")

    set_cookie_with_chunks(
        keep, lambda name, value: create_signed_value(SECRET, name, value), USER_COOKIE_NAME,
        {**ANN, "groups": [sha256(bytes([place])).hexdigest() for place in range(200)]}, cookie_attr_size=80,
    )  # fmt: skip
    assert len(parts) > 2
    assert guard.session(connection(parts)) is not None
    del parts[sorted(parts)[1]]
    assert guard.session(connection(parts)) is None


def test_each_provider_has_its_own_way_in(guard: OidcGuard) -> None:
    page = bytes(guard.ask(connection({}), back="/compare?a=<b>").body).decode()
    assert page.count('class="button"') == 2
    assert 'href="/sign-in/google?back=%2Fcompare%3Fa%3D%3Cb%3E">Sign in with google</a>' in page
    assert "Sign in with own" in page
