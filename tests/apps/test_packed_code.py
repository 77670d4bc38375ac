"""Streamlit's scripts arrive packed and unchanged; nothing else is answered."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import streamlit as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dashboard.packed_code import PackedCode


@pytest.fixture
def client() -> TestClient:
    behind = Route("/{rest:path}", lambda request: PlainTextResponse("passed on"))
    return TestClient(Starlette(routes=[behind], middleware=[Middleware(PackedCode)]))


@pytest.fixture
def script() -> Path:
    return max(
        (Path(st.__file__).parent / "static" / "static" / "js").glob("index.*.js"), key=lambda f: f.stat().st_size
    )


def test_a_script_arrives_packed_and_is_the_file(client: TestClient, script: Path) -> None:
    with client.stream("GET", f"/static/js/{script.name}", headers={"Accept-Encoding": "gzip"}) as answer:
        sent = b"".join(answer.iter_raw())
    assert gzip.decompress(sent) == script.read_bytes()
    assert len(sent) < 0.4 * script.stat().st_size
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["vary"] == "Accept-Encoding"
    assert "immutable" in answer.headers["cache-control"]


def test_who_cannot_unpack_gets_it_from_streamlit(client: TestClient, script: Path) -> None:
    assert client.get(f"/static/js/{script.name}", headers={"Accept-Encoding": "identity"}).text == "passed on"


@pytest.mark.parametrize(
    "path", ["/", "/static/js/", "/static/js/none.js", "/static/../index.html", "/static//etc/x.js"]
)
def test_anything_else_passes(client: TestClient, path: str) -> None:
    assert client.get(path).text == "passed on"
