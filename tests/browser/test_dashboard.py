"""The review in a real browser: links, original bytes, markup in prompts, paths that lead nowhere, live update."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from loupe.atomic_io import write_bytes
from tests.run_fixture import Shape, complete_run, draw_sample, paint_shoe, prompts_of, running_run

pytestmark = pytest.mark.browser
SHAPE = Shape(size_px=128)
LIVE_LIMIT_S = 45.0
"""Three seconds are the bar on an idle machine (benchmarks/bench_dashboard.py holds it); a busy one gets more."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_run(tmp_path_factory.mktemp("complete"), SHAPE)


@pytest.fixture(scope="module")
def address(root: Path, serve: Callable[[Path], str], browser: Any) -> str:
    return serve(root)


def open_compare(page: Any, address: str, query: str = "") -> None:
    page.goto(f"{address}/compare{query}")
    page.wait_for_selector(".lp-prompt .lp-img")


def test_a_link_shows_the_same_comparison_and_follows_the_filters(page: Any, address: str) -> None:
    open_compare(page, address, "?step=base&step=300&prompt=red_shoes&seed=1&junk=1")
    assert page.locator(".lp-prompt .lp-img").count() == 2
    assert page.locator(".lp-head .lp-cell").all_inner_texts()[0].startswith("Base model")
    page.locator(".st-key-step button", has_text="150").click()
    page.wait_for_function("document.querySelectorAll('.lp-prompt .lp-img').length === 3")
    page.wait_for_url("**step=150**")


def test_the_picture_in_the_page_is_byte_for_byte_the_file(page: Any, address: str, root: Path) -> None:
    open_compare(page, address, "?step=300&prompt=blue_shoes&seed=0")
    source = page.locator(".lp-prompt .lp-img").first.get_attribute("src")
    with urllib.request.urlopen(address + source) as answer:
        served = answer.read()
    assert served == (root / "data" / "samples" / "blue_shoes-0" / "000300.png").read_bytes()
    box = page.locator(".lp-prompt .lp-img").first.bounding_box()
    assert (box["width"], box["height"]) == (128, 128)


def test_a_prompt_with_markup_shows_literally(page: Any, address: str) -> None:
    page.on("dialog", lambda dialog: pytest.fail(f"a prompt ran as a script: {dialog.message}"))
    open_compare(page, address, "?prompt=val_1000")
    heading = page.locator(".lp-prompt h3 span").inner_text()
    assert heading.startswith("a <script>alert(1)</script> *bold* :red[x] [link](https://example.org/) & <img src=x")
    assert page.locator(".lp-prompt h3 span *").count() == 0


@pytest.mark.parametrize(
    "path",
    [
        "/img/../params.yaml", "/img/..%2f..%2fparams.yaml", "/img/%2e%2e/params.yaml", "/img/....//params.yaml",
        "/img/black_shoes-0/000000.png", "/img/" + "0" * 64, "/preview/..%5cparams.yaml", "/img/%00",
        "/../params.yaml", "/%2e%2e/params.yaml", "/..%5cparams.yaml", "//params.yaml", "/compare/../params.yaml",
        "/static/../params.yaml", "/static/..%2f..%2fparams.yaml", "/media/..%2fparams.yaml",
        "/app/static/../params.yaml", "/component/../../params.yaml", "/_stcore/bidi-components/..%2fparams.yaml",
        "/img/%252e%252e%252fparams.yaml", "/_stcore/upload_file/..%2f..%2fparams.yaml",
    ],
)  # fmt: skip
def test_no_path_leads_to_a_file(address: str, path: str) -> None:
    host, port = urlsplit(address).hostname, urlsplit(address).port
    with socket.create_connection((host, port), timeout=20) as wire:
        wire.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.split()[1] in (b"400", b"404")
    assert b"learning_rate" not in answer


def test_a_new_picture_shows_while_the_page_is_open_and_the_place_is_kept(
    page: Any, serve: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    running = running_run(tmp_path_factory.mktemp("running"), SHAPE)
    open_compare(page, serve(running))
    before = 2 * SHAPE.seeds * len(prompts_of(SHAPE))
    page.wait_for_function(f"document.querySelectorAll('.lp-prompt .lp-img').length === {before}")
    page.locator(".lp-prompt").nth(2).scroll_into_view_if_needed()
    place = "document.querySelector('.st-key-lp-grid').scrollTop"
    scrolled = page.evaluate(place)
    assert scrolled > 0
    prompt = prompts_of(SHAPE)[0]
    started = time.monotonic()
    picture = draw_sample(prompt, 0, 150, SHAPE, paint_shoe)
    write_bytes(running / "data" / "samples" / f"{prompt.prompt_id}-0" / "000150.png", picture)
    page.wait_for_function(f"document.querySelectorAll('.lp-prompt .lp-img').length === {before + 1}")
    assert time.monotonic() - started < LIVE_LIMIT_S
    assert page.evaluate(place) == scrolled
