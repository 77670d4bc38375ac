"""Looking closely and voting in a real browser: the large view by mouse and keys, its link, a vote by keys."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from loupe.votes import vote_book
from tests.run_fixture import Shape, complete_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_run(tmp_path_factory.mktemp("review"), Shape(steps=(75, 150, 300), size_px=64))


@pytest.fixture(scope="module")
def address(root: Path, serve: Callable[[Path], str], browser: Any) -> str:
    return serve(root)


def in_address(page: Any) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def transforms(page: Any) -> list[str]:
    return [image.evaluate("i => i.style.transform") for image in page.locator("dialog .layer img").all()]


def test_two_checkpoints_large_by_mouse_keys_and_link(page: Any, address: str, root: Path) -> None:
    troubles: list[str] = []
    foreign: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "request",
        lambda request: (
            foreign.append(request.url)
            if request.url.startswith("http") and urlsplit(request.url).netloc != urlsplit(address).netloc
            else None
        ),
    )
    page.goto(f"{address}/compare?prompt=red_shoes&seed=1&seed=0")
    page.wait_for_selector("dialog", state="attached")  # before it is there, a click opens the picture's own address
    page.wait_for_selector("dialog[data-rows]", state="attached")
    page.locator('a.lp-shot[data-look="red_shoes-1/150"]').click()
    page.wait_for_selector("dialog[open]")
    assert in_address(page) | {"look": "red_shoes-1", "a": "base", "b": "150", "view": "wipe"} == in_address(page)

    shown = page.locator("dialog .layer.b img")
    with urllib.request.urlopen(address + shown.get_attribute("src")) as answer:
        assert answer.read() == (root / "data" / "samples" / "red_shoes-1" / "000150.png").read_bytes()

    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("3")
    assert in_address(page) | {"look": "red_shoes-0", "a": "75", "b": "300", "view": "difference"} == in_address(page)
    assert page.locator("dialog .layer.b").evaluate("l => getComputedStyle(l).mixBlendMode") == "difference"

    before = transforms(page)
    box = page.locator("dialog .stage").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 100)
    page.mouse.wheel(0, -400)
    page.wait_for_function(
        "before => [...document.querySelectorAll('*')].flatMap(e => e.shadowRoot ? "
        "[...e.shadowRoot.querySelectorAll('.layer img')] : []).some(i => i.style.transform !== before)",
        arg=before[0],
    )
    one, other = transforms(page)
    assert one == other, "both pictures share one camera"
    assert re.search(r"scale\(([\d.]+)\)", one)[1] != re.search(r"scale\(([\d.]+)\)", before[0])[1]

    page.reload()
    page.wait_for_selector("dialog[open]")
    assert page.locator("dialog .tag.b").inner_text().endswith("Step 300")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    assert not {"look", "a", "b", "view"} & in_address(page).keys()
    assert (troubles, foreign) == ([], [])


def test_junk_in_the_link_of_a_large_view_opens_nothing_or_the_default(page: Any, address: str) -> None:
    page.goto(f"{address}/compare?prompt=red_shoes&look=../../etc-1&a=base")
    page.wait_for_selector(".lp-prompt .lp-img")
    assert page.locator("dialog[open]").count() == 0
    page.goto(f"{address}/compare?look=red_shoes-0&a=77&b=%3Cb%3E&view=upside")
    page.wait_for_selector("dialog[open]")
    assert page.locator("dialog .tag.a").inner_text().endswith("Base model")
    assert page.locator("dialog .tag.b").inner_text().endswith("Step 300")


def test_a_browser_that_lends_no_clipboard_is_told(page: Any, address: str) -> None:
    """As for every server without TLS that is not on this machine."""
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.goto(f"{address}/compare?look=red_shoes-0")
    page.wait_for_selector("dialog[open]")
    page.locator("dialog .copy").first.click()
    page.wait_for_selector("dialog .copy:has-text('the browser refuses')")
    assert troubles == []


def wait_for_pair(page: Any) -> None:
    """Wait until a pair stands there and the page is whole: the keys come with its last part."""
    page.wait_for_selector(".lp-pair img")
    page.wait_for_selector("[data-testid='stApp'][data-test-script-state='notRunning']")


def test_a_blind_vote_by_keys_is_kept_over_a_reload(page: Any, address: str, root: Path) -> None:
    page.goto(f"{address}/vote?reviewer=Ann")
    for count, key in enumerate(("1", "0", "2"), start=1):
        wait_for_pair(page)
        page.keyboard.press(key)
        page.wait_for_selector(f"text={count} of ")
    page.reload()
    page.wait_for_selector("text=3 of ")
    wait_for_pair(page)
    page.keyboard.press("1")
    page.wait_for_selector("text=4 of ")
    assert [vote.choice for vote in vote_book(root).votes()] == ["left", "tie", "right", "left"]


def test_a_name_typed_on_the_first_screen_begins_and_keys_answer_at_once(page: Any, address: str, root: Path) -> None:
    page.goto(f"{address}/vote")
    page.locator(".st-key-lp-welcome input").fill("Cy 2")
    page.keyboard.press("Enter")
    page.wait_for_selector(".lp-pair img")
    assert in_address(page)["reviewer"] == "Cy 2"
    page.keyboard.press("0")
    page.wait_for_selector("text=1 of ")
    assert [vote.choice for vote in vote_book(root).votes() if vote.reviewer == "Cy 2"] == ["tie"]


def test_results_follow_the_votes_of_others(page: Any, address: str, root: Path) -> None:
    page.goto(f"{address}/vote?show=Results")
    page.wait_for_selector("dt:has-text('Reviewers')")
    before = page.locator("dt:has-text('Votes') + dd").first.inner_text()
    last = vote_book(root).votes()[-1]
    vote_book(root).add(replace(last, reviewer="Dee"))
    page.wait_for_function(
        "before => [...document.querySelectorAll('dt')].some(d => d.innerText === 'Votes' && "
        "d.nextElementSibling.innerText === String(Number(before) + 1))",
        arg=before,
    )
