"""Every page in a real browser: quiet console, no foreign request, phone width, its link; and the wipe by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.browser.conftest import WAIT_MS
from tests.run_fixture import Shape, complete_run, write_previews

pytestmark = pytest.mark.browser
SHAPE = Shape(steps=(75, 150, 300), seeds=2, size_px=64)
READY = {
    "": "h1:has-text('Ship step 300')",
    "compare": ".lp-prompt .lp-img",
    "vote?reviewer=Ann": ".lp-pair img",
    "vote?show=Results": "h1:has-text('No votes yet')",
    "training": "h2:has-text('Speed and memory')",
    "data": "h1:has-text('examples')",
    "experiments": "h1:has-text('No experiments here')",
    "report": "h1:has-text('Ship step 300')",
}
"""Page -> what stands on it once it is drawn."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, serve: Callable[[Path], str], browser: Any) -> str:
    root = complete_run(tmp_path_factory.mktemp("pages"), SHAPE)
    write_previews(root, SHAPE)
    return serve(root)


def listen(page: Any, address: str) -> list[str]:
    """Collect what a page complains of and whom else it asks; both stay empty."""
    heard: list[str] = []

    def is_streamlit_probing(url: str) -> bool:
        # On a page below the root Streamlit first looks for its server beside that page; nothing of ours answers 4xx.
        return "/_stcore/" in url and not urlsplit(url).path.startswith("/_stcore/")

    def note_request(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != urlsplit(address).netloc:
            heard.append(f"asks {request.url}")

    def note_answer(answer: Any) -> None:
        if answer.status >= 400 and not is_streamlit_probing(answer.url):
            heard.append(f"{answer.status} {answer.url}")

    def note_message(message: Any) -> None:
        if message.type == "error" and not is_streamlit_probing((message.location or {}).get("url", "")):
            heard.append(message.text)

    page.on("request", note_request)
    page.on("websocket", note_request)
    page.on("response", note_answer)
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("console", note_message)
    return heard


def settle(page: Any) -> None:
    """Wait until Streamlit is done with the page and all pictures in view are there."""
    page.wait_for_selector("[data-testid='stApp'][data-test-script-state='notRunning']")
    page.wait_for_function(
        "[...document.images].every(i => i.complete || i.loading === 'lazy') && "
        "![...document.images].some(i => i.complete && i.currentSrc && i.naturalWidth === 0)"
    )


@pytest.mark.parametrize("path", READY)
def test_a_page_is_quiet_asks_nobody_else_and_shows_no_raw_error(page: Any, address: str, path: str) -> None:
    heard = listen(page, address)
    page.goto(f"{address}/{path}")
    page.wait_for_selector(READY[path])
    settle(page)
    if path in ("", "training"):
        page.wait_for_selector(".stVegaLiteChart canvas, .stVegaLiteChart svg")
    assert heard == []
    assert page.locator("[data-testid='stException']").count() == 0
    assert "Traceback" not in page.locator("body").inner_text()


@pytest.mark.parametrize("path", READY)
def test_a_phone_scrolls_in_the_tables_not_across_the_page(browser: Any, address: str, path: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.goto(f"{address}/{path}")
    page.wait_for_selector(READY[path])
    settle(page)
    widths = page.evaluate(
        "[document.documentElement.scrollWidth, document.querySelector('.stMain').scrollWidth, window.innerWidth]"
    )
    context.close()
    assert max(widths[:2]) <= widths[2]


def test_the_wipe_follows_the_hand_and_the_zoom_keeps_it(page: Any, address: str) -> None:
    heard = listen(page, address)
    page.goto(f"{address}/compare?look=red_shoes-0&a=75&b=300&view=wipe")
    page.wait_for_selector("dialog[open]")
    top, stage = page.locator("dialog .layer.b"), page.locator("dialog .stage")
    assert top.evaluate("l => l.style.clipPath") == "inset(0px 0px 0px 50%)"
    box, handle = stage.bounding_box(), page.locator("dialog .handle").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(handle["x"] + handle["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, middle, steps=4)
    page.mouse.up()
    wiped = float(top.evaluate("l => l.style.clipPath").split()[-1].rstrip("%)"))
    assert wiped == pytest.approx(25, abs=2)
    images = page.locator("dialog .layer img")
    before = images.first.evaluate("i => i.style.transform")
    page.locator("dialog button[data-zoom='in']").click()
    after = [image.evaluate("i => i.style.transform") for image in images.all()]
    assert after[0] == after[1] != before
    assert float(top.evaluate("l => l.style.clipPath").split()[-1].rstrip("%)")) == wiped
    assert heard == []
