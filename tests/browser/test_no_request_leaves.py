"""The server itself asks nobody: every page is visited while an audit hook notes whom its processes want to reach."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.browser.dashboard_server import DashboardServer, start_server
from tests.browser.test_every_page import READY, settle
from tests.run_fixture import Shape, complete_run
from tests.small_repository import git

pytestmark = pytest.mark.browser
HOOK = """
import os, sys

def note(event, arguments):
    host = None
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    if isinstance(host, bytes):
        host = host.decode()
    if host and host not in ("localhost", "::1", "0.0.0.0") and not host.startswith("127."):
        with open(os.environ["ASKED"], "a") as file:
            file.write(f"{event} {host}\\n")

sys.addaudithook(note)
"""


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    return tmp_path / "asked.txt"


@pytest.fixture
def hooked(tmp_path: Path, asked: Path) -> dict[str, str]:
    """Settings under which every Python process, the server's children too, notes whom it wants to reach."""
    folder = tmp_path / "hook"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOK)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "ASKED": str(asked)}


@pytest.fixture
def server(tmp_path: Path, hooked: dict[str, str], browser: Any) -> Iterator[DashboardServer]:
    root = tmp_path / "run"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").touch()
    complete_run(root, Shape(steps=(75, 300), seeds=1, size_px=32))
    git(root, "init", "-q")
    git(root, "add", "params.yaml", "metrics")
    git(root, "commit", "-q", "-m", "first")
    server = start_server(root, tmp_path / "server.log", settings=hooked)
    yield server
    server.stop()


def test_the_hook_sees_who_is_asked(hooked: dict[str, str], asked: Path) -> None:
    code = "import socket\ntry: socket.create_connection(('192.0.2.1', 9), timeout=0.05)\nexcept OSError: pass"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **hooked}, check=True)
    assert "socket.connect 192.0.2.1" in asked.read_text()


def test_no_page_lets_the_server_ask_anybody(page: Any, server: DashboardServer, asked: Path) -> None:
    for path, ready in READY.items():
        page.goto(f"{server.address}/{path}")
        page.wait_for_selector("h1:has-text('Commits, no experiments yet')" if path == "experiments" else ready)
        settle(page)
    assert not asked.exists() or asked.read_text() == ""


def test_it_listens_on_the_loopback_address_alone(server: DashboardServer) -> None:
    process = psutil.Process(server.process.pid)
    family = [process, *process.children(recursive=True)]
    listening = [c.laddr.ip for p in family for c in p.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]
