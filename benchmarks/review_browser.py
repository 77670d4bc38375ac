"""What a reviewer waits for, measured in a real Chromium: first paint, switches, filters, bytes, live update.

It measures from the click to the moment when every picture in view is one that was asked for, and is decoded.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

READY = """
([scope, wanted, least]) => {
  const links = [...document.querySelectorAll(`${scope} a.lp-shot`)].filter((link) => {
    const edge = link.getBoundingClientRect()
    return edge.bottom > 0 && edge.top < innerHeight && edge.right > 0 && edge.left < innerWidth
  })
  const asked = new RegExp(wanted)
  const shown = (image) => image && image.complete && image.naturalWidth > 0
  const isReady = (link) => asked.test(link.dataset.look) && shown(link.querySelector('img'))
  return links.length >= least && links.every(isReady)
}
"""
VIEWPORT = {"width": 1280, "height": 900}
WAIT_MS = 180_000
READING_MS = 3000
GRID, STRIPS, WALL = ".lp-prompt", ".lp-strips", ".lp-wall"


@contextmanager
def new_page(browser: Any) -> Iterator[Any]:
    """Yield a page with an empty cache, as a first visitor has."""
    context = browser.new_context(viewport=VIEWPORT)
    context.set_default_timeout(WAIT_MS)
    try:
        yield context.new_page()
    finally:
        context.close()


def wait_for_pictures(page: Any, scope: str, wanted: str = ".", *, least: int = 4) -> None:
    """Wait until at least `least` pictures are in view, all of them wanted ones (by prompt-seed/step) and decoded."""
    page.wait_for_function(READY, arg=[scope, wanted, least], polling="raf")


def seconds(act: Callable[[], Any], wait: Callable[[], Any]) -> float:
    """Return how long it takes from an action to what is waited for."""
    started = time.perf_counter()
    act()
    wait()
    return time.perf_counter() - started


def first_paint(page: Any, address: str) -> dict[str, float]:
    """Open Overview; return seconds to its headline and to the pictures in view."""
    started = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_selector("h1:has-text('Ship step')")
    headline_s = time.perf_counter() - started
    wait_for_pictures(page, STRIPS)
    return {"headline": headline_s, "pictures": time.perf_counter() - started}


def page_switches(page: Any, address: str, *, repeats: int) -> list[float]:
    """Read Overview for a while, then go back and forth to Compare; return seconds each, its first visit included."""
    page.goto(address)
    wait_for_pictures(page, STRIPS)
    page.wait_for_selector(".stVegaLiteChart canvas, .stVegaLiteChart svg")
    page.wait_for_timeout(READING_MS)
    times = []
    for _ in range(repeats):
        times.append(seconds(lambda: _open(page, "Compare"), lambda: wait_for_pictures(page, GRID)))
        times.append(seconds(lambda: _open(page, "Overview"), lambda: wait_for_pictures(page, STRIPS)))
    return times


def visit_all(page: Any, names: Sequence[str]) -> None:
    """Open one page after the other, each until its script has ended."""
    for name in names:
        _open(page, name)
        page.wait_for_url(f"**/{name.lower()}*")
        page.wait_for_function("document.querySelector('.stApp').dataset.testScriptState === 'notRunning'")


def step_slides(page: Any, address: str, steps: tuple[int, ...]) -> list[float]:
    """Move the one step slider from the last step to the first and back, over all pictures at once."""
    page.goto(f"{address}/compare?layout=One+step&at={steps[-1]}")
    wait_for_pictures(page, WALL, f"/{steps[-1]}$")
    slider = page.locator(".st-key-at input[type=range]")
    slider.focus()

    def slide(key: str, step: int) -> float:
        return seconds(lambda: slider.press(key), lambda: wait_for_pictures(page, WALL, f"/{step}$"))

    return [slide("ArrowLeft", step) for step in steps[-2::-1]] + [slide("ArrowRight", step) for step in steps[1:]]


def seed_filters(page: Any, address: str, *, repeats: int) -> list[float]:
    """Pick one seed of four and let it go again; return seconds until only its pictures are in view."""
    page.goto(f"{address}/compare")
    wait_for_pictures(page, GRID)
    times = []
    for turn in range(repeats):
        seed = 1 + turn % 3
        pill = page.locator(".st-key-seed button").nth(seed)
        times.append(seconds(pill.click, lambda asked=f"-{seed}/": wait_for_pictures(page, GRID, asked)))
        pill.click()
        page.wait_for_selector(".lp-prompt a.lp-shot[data-look*='-0/']")
        wait_for_pictures(page, GRID)
    return times


def searches(page: Any, address: str, prompt_ids: Sequence[str]) -> list[float]:
    """Put the id of one prompt after the other into the search, which waits a moment for the next key."""
    page.goto(f"{address}/compare")
    wait_for_pictures(page, GRID)
    search = page.locator(".st-key-q input")

    def find(prompt_id: str) -> float:
        asked = f"^{re.escape(prompt_id)}-"
        return seconds(lambda: search.fill(prompt_id), lambda: wait_for_pictures(page, GRID, asked))

    return [find(prompt_id) for prompt_id in prompt_ids]


def page_turns(page: Any, address: str, *, first: int, repeats: int) -> list[float]:
    """Turn to the next page of Compare, from page `first` on; each shows pictures that were not asked for before."""
    page.goto(f"{address}/compare?page={first}")
    wait_for_pictures(page, GRID)
    button = page.locator(".st-key-page button").last
    button.scroll_into_view_if_needed()
    looks = "[...new Set([...document.querySelectorAll('.lp-prompt a.lp-shot')].map((a) => a.dataset.look))]"
    times = []
    for _ in range(repeats):
        seen = {look.rpartition("-")[0] for look in page.evaluate(looks)}
        others = "^(?!(" + "|".join(map(re.escape, sorted(seen))) + ")-)"
        times.append(seconds(button.click, lambda asked=others: wait_for_pictures(page, GRID, asked)))
    return times


def first_view_bytes(browser: Any, address: str) -> dict[str, float]:
    """Open Compare with an empty cache; return MB until it is quiet, by kind, and the pictures loaded by scrolling."""
    with new_page(browser) as page:
        received = {"pictures": 0, "page": 0, "streamlit": 0}
        kinds: dict[str, str] = {}
        wire = page.context.new_cdp_session(page)
        wire.send("Network.enable")
        wire.on("Network.responseReceived", lambda e: kinds.update({e["requestId"]: _kind(e["response"]["url"])}))
        wire.on("Network.loadingFinished", lambda e: _count(received, kinds, e["requestId"], e["encodedDataLength"]))
        wire.on("Network.webSocketFrameReceived", lambda e: _count_frame(received, e["response"]))
        page.goto(f"{address}/compare")
        wait_for_pictures(page, GRID)
        page.wait_for_load_state("networkidle")
        first = {
            f"{kind}_mb": round(count / 1e6, 3) for kind, count in {**received, "all": sum(received.values())}.items()
        }
        loaded = "[...document.querySelectorAll('.lp-prompt img')].filter((i) => i.complete && i.naturalWidth).length"
        before = page.evaluate(loaded)
        page.evaluate("(g => g.scrollTo(0, g.scrollHeight))(document.querySelector('.st-key-lp-grid'))")
        wait_for_pictures(page, GRID)
        return {
            **first, "pictures_loaded": before, "pictures_loaded_after_scrolling": page.evaluate(loaded),
            "pictures_on_the_page": page.locator(".lp-prompt img").count(),
        }  # fmt: skip


def _open(page: Any, name: str) -> None:
    page.locator('[data-testid="stTopNavLink"]', has_text=name).first.click()


def _kind(url: str) -> str:
    return "pictures" if "/img/" in url or "/preview/" in url else "streamlit"


def _count(received: dict[str, int], kinds: dict[str, str], request: str, length: float) -> None:
    received[kinds.get(request, "streamlit")] += int(length)


def _count_frame(received: dict[str, int], frame: dict[str, Any]) -> None:
    is_binary = frame["opcode"] == 2
    received["page"] += len(frame["payloadData"]) * 3 // 4 if is_binary else len(frame["payloadData"])
