"""A review with a password in a real browser: nothing of the run before it is given, and the link kept after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboard.access.password import hash_password
from loupe.run_store import RunStore
from tests.browser.dashboard_server import DashboardServer, start_server
from tests.run_fixture import Shape, complete_run

pytestmark = pytest.mark.browser
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_run(tmp_path_factory.mktemp("password"), Shape(steps=(75, 150), seeds=1, size_px=32))


@pytest.fixture(scope="module")
def server(root: Path, browser: Any) -> Iterator[DashboardServer]:
    file = root / "password"
    file.write_text(hash_password(PASSWORD).encoded())
    server = start_server(root, root / "server.log", settings={"LOUPE_PASSWORD_FILE": str(file)})
    yield server
    server.stop()


def test_a_shared_link_asks_for_the_password_and_then_shows_what_it_is_about(
    page: Any, server: DashboardServer, root: Path
) -> None:
    bodies: list[str] = []
    sockets: list[str] = []
    page.on("response", lambda answer: bodies.append(answer.url))
    page.on("websocket", lambda websocket: sockets.append(websocket.url))
    page.goto(f"{server.address}/compare?prompt=red_shoes&step=base&step=150")
    page.wait_for_selector("input[type=password]:focus")
    assert bodies == [f"{server.address}/compare?prompt=red_shoes&step=base&step=150"], "one answer, the form"
    assert sockets == []
    shown = page.content()
    assert "<img" not in shown
    assert not any(prompt.text in shown for prompt in RunStore(root).prompts())

    page.keyboard.type("not the password")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert]:has-text('That is not the password.')")
    assert sockets == []
    page.locator("input[type=password]").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector(".lp-prompt .lp-img")
    assert page.locator(".lp-prompt .lp-img").count() == 2
    page.wait_for_function("(i => i.complete && i.naturalWidth > 0)(document.querySelector('.lp-img'))")
    (cookie,) = [cookie for cookie in page.context.cookies() if cookie["name"].startswith("loupe_session")]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    assert page.evaluate("document.cookie").find("loupe_session") == -1

    page.reload()
    page.wait_for_selector(".lp-prompt .lp-img")
    page.locator("a.lp-sign-out").click()
    page.locator("button:has-text('Sign out')").click()
    page.wait_for_selector("input[type=password]")
    page.goto(f"{server.address}/compare")
    page.wait_for_selector("input[type=password]")


def test_an_open_page_whose_session_is_signed_out_elsewhere_gets_nothing_more(
    page: Any, server: DashboardServer, root: Path
) -> None:
    page.goto(f"{server.address}/vote?reviewer=Ann")
    page.locator("input[type=password]").fill(PASSWORD)
    with page.expect_websocket() as opened:
        page.keyboard.press("Enter")
    page.wait_for_selector(".lp-pair img")
    source = page.locator(".lp-pair img").first.get_attribute("src")
    with opened.value.expect_event("close"):
        page.evaluate("fetch('/sign-out', {method: 'POST'})")
    page.wait_for_function(f"fetch('{source}', {{cache: 'reload'}}).then(answer => answer.status === 401)")
