"""The gate before the whole server: nothing of a run passes it without a session, whatever the route."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from dashboard.access.gate import HEALTH, Gate, Guard
from dashboard.access.password import MIN_LENGTH, PasswordHash, hash_password
from dashboard.access.password_guard import PasswordGuard
from dashboard.access.sign_in import SESSION_S, Sessions
from dashboard.image_route import PICTURE_ROUTES, picture_url, preview_url
from loupe.run_store import RunStore
from tests.run_fixture import Shape, complete_run

PASSWORD = "correct horse battery"
HTML = {"accept": "text/html,*/*;q=0.8"}
ORIGIN = "http://127.0.0.1:8501"
STREAM = "ws://127.0.0.1:8501/_stcore/stream"


@pytest.fixture(scope="module")
def password() -> PasswordHash:
    return hash_password(PASSWORD)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_run(tmp_path_factory.mktemp("guarded"), Shape(steps=(75,), seeds=1, size_px=300, captions=0))


@pytest.fixture(autouse=True)
def project(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOUPE_PROJECT", str(root))


@pytest.fixture
def urls(root: Path) -> list[str]:
    sample = next(iter(RunStore(root).samples()))
    return [picture_url(sample.sha256), preview_url(sample.sha256)]


def served(guard: Guard | None, *, open_to_all: bool = False, client: str = "127.0.0.1") -> TestClient:
    """The gate before the picture routes and stand-ins for what else a server answers."""

    async def content(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"content of the run at {request.scope['path']}")

    async def stream(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("content of the run")
        with suppress(WebSocketDisconnect):
            await websocket.receive_text()

    app = Starlette(
        routes=[*PICTURE_ROUTES, WebSocketRoute("/_stcore/stream", stream), Route("/{rest:path}", content)],
        middleware=[Middleware(Gate, guard=guard, open_to_all=open_to_all)],
    )
    return TestClient(app, base_url=ORIGIN, client=(client, 50000), follow_redirects=False)


def sign_in(client: TestClient, password: str = PASSWORD, **fields: str) -> object:
    return client.post("/sign-in", data={"password": password, **fields}, headers={"origin": ORIGIN})


def test_without_a_cookie_nothing_of_the_run_is_answered(password: PasswordHash, urls: list[str]) -> None:
    client = served(PasswordGuard(password))
    paths = [
        *urls, "/", "/compare?a=1", "/media/abc.csv", "/_stcore/host-config", "/_stcore/upload_file/a/b",
        "/_stcore/metrics", "/_stcore/agent/interact", "/component/x", "/static/js/index.js", "/anything",
    ]  # fmt: skip
    for path in paths:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
            answer = client.request(method, path)
            assert answer.status_code == 401, (method, path)
            assert "content of the run" not in answer.text
            assert answer.headers["cache-control"] == "no-store"
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(STREAM):
        pass
    assert client.get(HEALTH).status_code == 200, "a monitor may ask whether the server is up"


def test_a_page_asks_for_the_password_and_shows_nothing_else(password: PasswordHash, root: Path) -> None:
    answer = served(PasswordGuard(password)).get("/compare?prompt=red_shoes&x=%22%3E%3Cscript%3E", headers=HTML)
    assert answer.status_code == 401
    assert 'type="password"' in answer.text
    assert 'name="back" value="/compare?prompt=red_shoes&amp;x=%22%3E%3Cscript%3E"' in answer.text
    assert "<script" not in answer.text
    assert "<img" not in answer.text
    assert not any(prompt.text in answer.text for prompt in RunStore(root).prompts())
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_with_the_password_pages_pictures_and_websocket_open(
    password: PasswordHash, urls: list[str], root: Path
) -> None:
    client = served(PasswordGuard(password))
    answer = sign_in(client, back="/compare?a=base")
    assert (answer.status_code, answer.headers["location"]) == (303, "/compare?a=base")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert f"Max-Age={int(SESSION_S)}" in cookie
    original, preview = (client.get(url) for url in urls)
    assert original.content == (root / "data" / "samples" / "black_shoes-0" / "000000.png").read_bytes()
    assert preview.headers["content-type"] == "image/webp"
    assert client.get("/media/report.html").text == "content of the run at /media/report.html"
    with client.websocket_connect(STREAM) as stream:
        assert stream.receive_text() == "content of the run"


def test_the_cookie_is_secure_when_the_connection_is(password: PasswordHash) -> None:
    client = served(PasswordGuard(password))
    assert "Secure" not in sign_in(client).headers["set-cookie"]
    over_tls = client.post("https://127.0.0.1:8501/sign-in", data={"password": PASSWORD})
    assert "Secure" in over_tls.headers["set-cookie"]


def test_a_cookie_that_was_altered_forged_or_has_expired_is_refused(password: PasswordHash, urls: list[str]) -> None:
    client = served(PasswordGuard(password))
    sign_in(client)
    ((name, token),) = client.cookies.items()
    expires, session, signature = token.split(".")
    client.cookies.clear()
    forged = Sessions(b"another key").begin(now_s=time.time())
    wrong = [
        f"{int(expires) + 1}.{session}.{signature}", f"{expires}.{session[::-1]}.{signature}",
        f"{expires}.{session}.{signature[::-1]}", f"{expires}.{session}.", f"{expires}..{signature}", "", "a.b.c",
        f"{token}x", f"{int(expires):d}\u0660.{session}.{signature}".encode().decode("latin-1"), forged,
    ]  # fmt: skip
    for value in wrong:
        headers = {"cookie": f"{name}={value}".encode("latin-1")}
        assert client.get(urls[0], headers=headers).status_code == 401, value
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(STREAM, headers=headers):
            pass
    assert client.get(urls[0], headers={"cookie": f"{name}={token}"}).status_code == 200


def test_a_session_ends_after_its_time_and_when_signed_out(
    password: PasswordHash, urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = served(PasswordGuard(password))
    sign_in(client)
    token = dict(client.cookies)
    now = time.time()
    monkeypatch.setattr("dashboard.access.password_guard.time.time", lambda: now + SESSION_S - 60)
    assert client.get(urls[0]).status_code == 200
    monkeypatch.setattr("dashboard.access.password_guard.time.time", lambda: now + SESSION_S + 1)
    assert client.get(urls[0]).status_code == 401
    monkeypatch.undo()
    assert "Sign out" in client.get("/sign-out").text
    client.cookies.update(token)
    signed_out = client.post("/sign-out", headers={"origin": ORIGIN})
    assert (signed_out.status_code, signed_out.headers["clear-site-data"]) == (303, '"cache"')
    assert "Max-Age=0" in signed_out.headers["set-cookie"]
    client.cookies.update(token)
    assert client.get("/", headers=HTML).status_code == 401, "a copy of the cookie is worth nothing either"


def test_an_open_page_ends_with_its_session(password: PasswordHash, monkeypatch: pytest.MonkeyPatch) -> None:
    client = served(PasswordGuard(password))
    sign_in(client)
    ((_, token),) = client.cookies.items()
    almost = int(token.split(".")[0]) - 1.5
    monkeypatch.setattr("dashboard.access.gate.time", SimpleNamespace(time=lambda: almost))
    with client.websocket_connect(STREAM) as stream:
        assert stream.receive_text() == "content of the run"
        with pytest.raises(WebSocketDisconnect) as end:
            stream.receive_text()
    assert end.value.reason == "The session has ended."


def test_signing_out_ends_the_pages_that_are_open(password: PasswordHash) -> None:
    guard = PasswordGuard(password)
    with served(guard) as client:
        sign_in(client)
        with client.websocket_connect(STREAM) as stream:
            assert stream.receive_text() == "content of the run"
            client.post("/sign-out", headers={"origin": ORIGIN})
            with pytest.raises(WebSocketDisconnect) as end:
                stream.receive_text()
    assert end.value.reason == "The session has ended."


def test_wrong_passwords_are_refused_and_soon_slowed_down(
    password: PasswordHash, urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(time=time.time, monotonic=lambda: 1000.0)
    monkeypatch.setattr("dashboard.access.password_guard.time", clock)
    guard = PasswordGuard(password)
    client = served(guard)
    for _ in range(5):
        answer = sign_in(client, "not the password")
        assert answer.status_code == 401
        assert "That is not the password." in answer.text
        assert "set-cookie" not in answer.headers
    slowed = sign_in(client, PASSWORD)
    assert slowed.status_code == 429, "even the right one must wait, or guessing would go on"
    assert slowed.headers["retry-after"] == "1"
    assert client.get(urls[0]).status_code == 401
    assert sign_in(served(guard, client="192.0.2.7")).status_code == 303, "another address does not wait"
    clock.monotonic = lambda: 1001.0
    assert sign_in(client).status_code == 303, "after the pause it is heard again"


@pytest.mark.parametrize(
    "back",
    [
        "https://example.org/", "//example.org/", "/\\example.org", "/\t/example.org", "javascript:alert(1)", "",
        "http:example.org", "\\\\example.org", "/%0d%0aSet-Cookie:x".replace("%0d%0a", "\r\n"), "/sign-out", "///x.org",
    ],
)  # fmt: skip
def test_signing_in_never_leads_to_another_server(password: PasswordHash, back: str) -> None:
    assert sign_in(served(PasswordGuard(password)), back=back).headers["location"] == "/"


def test_the_form_is_taken_from_its_own_page_only(password: PasswordHash) -> None:
    client = served(PasswordGuard(password))
    for origin in ("https://example.org", "null", "http://127.0.0.1:9999", "http://["):
        for path in ("/sign-in", "/sign-out"):
            answer = client.post(path, data={"password": PASSWORD}, headers={"origin": origin})
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert client.post("/sign-in", content=b"password=" + b"x" * 20000).status_code == 401
    assert client.post("/sign-in", content=b"\xff\xfe=&&&" * 20).status_code == 401


def test_a_host_header_with_a_path_in_it_opens_nothing(
    password: PasswordHash, urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.access.gate.is_host_allowed", lambda host: True)
    client = served(PasswordGuard(password))
    for host in (f"127.0.0.1:8501{HEALTH}?", f"127.0.0.1{HEALTH}#", "x/sign-in?"):
        assert client.get(urls[0], headers={"host": host}).status_code == 401
    assert client.get(f"{HEALTH}%3F/../img").status_code == 401


def test_unguarded_only_this_machine_is_let_in_under_its_own_name(
    urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = {"server.allowedHosts": ["127.0.0.1", "localhost"], "server.corsAllowedOrigins": []}
    monkeypatch.setattr("streamlit.config.get_option", hosts.get)
    assert served(None).get(urls[0]).status_code == 200
    assert served(None).get(urls[0], headers={"host": "rebound.example.org"}).status_code == 400
    away = served(None, client="192.0.2.7")
    assert away.get(urls[0]).status_code == 403
    with pytest.raises(WebSocketDisconnect), away.websocket_connect(STREAM):
        pass
    assert served(None, open_to_all=True, client="192.0.2.7").get(urls[0]).status_code == 200


def test_a_page_of_another_server_cannot_open_the_websocket(password: PasswordHash) -> None:
    guarded = served(PasswordGuard(password))
    sign_in(guarded)
    for client in (guarded, served(None)):
        for origin in ("https://example.org", "null", "http://127.0.0.1:9999", "http://["):
            headers = {"origin": origin}
            with pytest.raises(WebSocketDisconnect), client.websocket_connect(STREAM, headers=headers):
                pass
        with client.websocket_connect(STREAM, headers={"origin": ORIGIN}) as stream:
            assert stream.receive_text() == "content of the run"


def test_no_password_stands_in_a_page_or_in_the_log(password: PasswordHash, caplog: pytest.LogCaptureFixture) -> None:
    answer = sign_in(served(PasswordGuard(password)), "my secret guess")
    assert "my secret guess" not in answer.text + caplog.text
    assert re.search("A wrong password came from 127.0.0.1", caplog.text)
    assert len(PASSWORD) >= MIN_LENGTH
