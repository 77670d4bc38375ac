"""A real Chromium and a real server for the browser tests; both end with the session. Without Chromium they skip."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.dashboard_server import DashboardServer, ServerFailedError, start_server

WAIT_MS = 120_000
"""For a page that will never show what is waited for; a busy machine gets its time."""
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium is installed; to install it: make browser")
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WAIT_MS)
    yield context.new_page()
    context.close()


_servers: list[DashboardServer] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the servers said to the report of a test that failed."""
    report = yield
    if report.failed:
        report.sections += [("dashboard", server.said()) for server in _servers]
    return report


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Path], str]]:
    """A function that serves a project folder and returns the address."""

    def start(root: Path) -> str:
        try:
            _servers.append(start_server(root, root / f"server-{len(_servers)}.log"))
        except ServerFailedError as error:
            pytest.fail(str(error))
        return _servers[-1].address

    yield start
    while _servers:
        _servers.pop().stop()
