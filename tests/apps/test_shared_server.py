"""A real server that is shared, spoken to over HTTP: with a password, and with accounts of a provider."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from dashboard.access.password import hash_password
from dashboard.image_route import picture_url, preview_url
from loupe.run_store import RunStore
from tests.apps.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider, oidc_provider
from tests.browser.dashboard_server import DashboardServer, ServerFailedError, start_server
from tests.run_fixture import Shape, complete_run

PASSWORD = "correct horse battery"
HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_run(tmp_path_factory.mktemp("shared"), Shape(steps=(75,), seeds=1, size_px=32))


@pytest.fixture(scope="module")
def urls(root: Path) -> list[str]:
    sample = next(iter(RunStore(root).samples()))
    return [picture_url(sample.sha256), preview_url(sample.sha256)]


@pytest.fixture(scope="module")
def guarded(root: Path) -> Iterator[DashboardServer]:
    file = root / "password"
    file.write_text(hash_password(PASSWORD).encoded())
    server = start_server(root, root / "password.log", settings={"LOUPE_PASSWORD_FILE": str(file)})
    yield server
    server.stop()


def websocket_status(address: str, cookie: str = "") -> int:
    """The status that answers the opening of Streamlit's websocket: 101 opens it."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as wire:
        wire.sendall(
            f"GET /_stcore/stream HTTP/1.1\r\nHost: {parts.netloc}\r\nOrigin: {address}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: streamlit\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nCookie: {cookie}\r\n\r\n".encode()
        )
        return int(wire.recv(4096).split()[1])


def cookies_of(client: httpx.Client) -> str:
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)


def test_without_the_password_every_route_of_the_server_is_shut(guarded: DashboardServer, urls: list[str]) -> None:
    with httpx.Client(base_url=guarded.address, timeout=60) as client:
        page = client.get("/compare?prompt=red_shoes", headers=HTML)
        assert (page.status_code, 'type="password"' in page.text, "shoes" in page.text.lower()) == (401, True, True)
        assert page.text.count("shoes") == 1, "only in the address to come back to"
        others = ["/static/js/", "/media/x", "/component/x/y", "/auth/login", "/favicon.png"]
        others += [f"/_stcore/{name}" for name in ("host-config", "metrics", "agent/openapi.json", "agent/interact")]
        for path in (*urls, *others):
            assert client.get(path).status_code == 401, path
    assert websocket_status(guarded.address) == 403
    assert websocket_status(guarded.address, "loupe_session_1=x") == 403


def test_with_the_password_the_same_routes_answer(guarded: DashboardServer, urls: list[str], root: Path) -> None:
    with httpx.Client(base_url=guarded.address, timeout=60) as client:
        answer = client.post("/sign-in", data={"password": PASSWORD, "back": "/vote?reviewer=Ann"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/vote?reviewer=Ann")
        picture = client.get(urls[0])
        assert picture.content == (root / "data" / "samples" / "black_shoes-0" / "000000.png").read_bytes()
        assert client.get("/compare", headers=HTML).status_code == 200
        assert websocket_status(guarded.address, cookies_of(client)) == 101
        cookie = cookies_of(client)
        client.post("/sign-out")
        assert client.get(urls[0]).status_code == 401
        assert client.get(urls[0], headers={"cookie": cookie}).status_code == 401
        assert websocket_status(guarded.address, cookie) == 403


@pytest.fixture(scope="module")
def provider() -> Iterator[OidcProvider]:
    with oidc_provider() as running:
        yield running


@pytest.fixture(scope="module")
def with_accounts(root: Path, provider: OidcProvider) -> Iterator[DashboardServer]:
    folder = root / "secrets"
    folder.mkdir()
    secrets = folder / "secrets.toml"
    auth = {
        "redirect_uri": "http://127.0.0.1:{port}/oauth2callback", "cookie_secret": "k" * 40, "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET, "server_metadata_url": f"{provider.issuer}/.well-known/openid-configuration",
    }  # fmt: skip
    lines = ["[auth]", *(f"{name} = {json.dumps(value)}" for name, value in auth.items())]
    secrets.write_text("\n".join([*lines, "[loupe]", 'reviewers = ["ann@example.org", "@lab.example.org", "sub:7"]']))
    server = start_server(root, root / "accounts.log", settings={"STREAMLIT_SECRETS_FILES": str(secrets)})
    yield server
    server.stop()


@contextmanager
def signed_in(server: DashboardServer, provider: OidcProvider, **claims: object) -> Iterator[httpx.Client]:
    """A browser that went to the provider and came back."""
    provider.claims = claims
    with httpx.Client(base_url=server.address, timeout=60, follow_redirects=True) as client:
        client.get("/sign-in/default", headers=HTML)
        yield client


def test_accounts_of_the_list_get_in_and_land_where_they_wanted(
    with_accounts: DashboardServer, provider: OidcProvider, urls: list[str]
) -> None:
    with httpx.Client(base_url=with_accounts.address, timeout=60) as stranger:
        page = stranger.get("/compare?a=base", headers=HTML)
        assert page.status_code == 401
        assert 'href="/sign-in/default?back=%2Fcompare%3Fa%3Dbase"' in page.text
        assert [stranger.get(url).status_code for url in urls] == [401, 401]
    assert websocket_status(with_accounts.address) == 403
    ways_in = (
        {"sub": "1", "email": "Ann@Example.org", "email_verified": True},
        {"sub": "2", "email": "bob@lab.example.org", "email_verified": True},
        {"sub": "7"},
    )
    for claims in ways_in:
        with signed_in(with_accounts, provider, **claims) as client:
            assert client.get(urls[0]).status_code == 200, claims
            assert websocket_status(with_accounts.address, cookies_of(client)) == 101
            landed = client.get("/sign-in/default", params={"back": "/compare?a=base"}, headers=HTML)
            assert str(landed.url) == f"{with_accounts.address}/compare?a=base"
            client.get("/sign-out")
            assert client.get(urls[0]).status_code == 401


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "9", "email": "eve@example.org", "email_verified": True},
        {"sub": "9", "email": "ann@example.org", "email_verified": False},
        {"sub": "9", "email": "ann@example.org"},
        {"sub": "9", "email": "eve@notlab.example.org", "email_verified": True},
        {"sub": "*", "email": "*", "email_verified": True},
        {"sub": "9", "email": "sub:7", "email_verified": True},
    ],
)
def test_other_accounts_stay_out_and_are_told_why(
    with_accounts: DashboardServer, provider: OidcProvider, urls: list[str], claims: dict[str, object]
) -> None:
    with signed_in(with_accounts, provider, **claims) as client:
        page = client.get("/", headers=HTML)
        assert page.status_code == 403
        assert f"(sub:{claims['sub']}), which is not on this review&#x27;s list" in page.text
        assert client.get(urls[0]).status_code == 401
        assert websocket_status(with_accounts.address, cookies_of(client)) == 403


def test_an_altered_cookie_of_an_account_is_none(
    with_accounts: DashboardServer, provider: OidcProvider, urls: list[str]
) -> None:
    with signed_in(with_accounts, provider, sub="7") as client:
        cookie = cookies_of(client)
    with httpx.Client(base_url=with_accounts.address, timeout=60) as client:
        assert client.get(urls[0], headers={"cookie": cookie}).status_code == 200
        name = "_streamlit_user="
        start = cookie.index(name) + len(name)
        changed = cookie[:start] + ("A" if cookie[start] != "A" else "B") + cookie[start + 1 :]
        assert client.get(urls[0], headers={"cookie": changed}).status_code == 401


def test_secrets_that_cannot_be_read_stop_the_server(root: Path, tmp_path: Path) -> None:
    broken = tmp_path / "secrets.toml"
    broken.write_text("[auth\n")
    with pytest.raises(ServerFailedError, match=r"secrets\.toml cannot be read"):
        start_server(root, tmp_path / "log", settings={"STREAMLIT_SECRETS_FILES": str(broken)})
