"""Experiments of a real git and DVC project in a real browser: the table, two side by side, and a trial's command."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.browser.conftest import WAIT_MS
from tests.small_repository import dvc, git, two_commits

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_commits(tmp_path_factory.mktemp("experiments"))


@pytest.fixture(scope="module")
def address(root: Path, serve: Callable[[Path], str], browser: Any) -> str:
    return serve(root)


def test_pictures_of_two_commits_come_from_the_cache_and_open_large(page: Any, address: str, root: Path) -> None:
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    before = git(root, "status", "--porcelain")
    first = git(root, "rev-parse", "--short=7", "HEAD~1")
    page.goto(f"{address}/experiments?commits=true&one={first}&other=workspace")
    page.wait_for_selector(".lp-finding .lp-img")
    pair = page.locator('.lp-finding a[data-look^="red_shoes-0/"]')
    assert [link.get_attribute("data-look") for link in pair.all()] == ["red_shoes-0/A", "red_shoes-0/B"]
    sources = [link.locator("img").get_attribute("src") for link in pair.all()]
    contents = []
    for source in sources:
        with urllib.request.urlopen(address + source) as answer:
            contents.append(answer.read())
    assert contents[1] == (root / "data" / "samples" / "red_shoes-0" / "000075.png").read_bytes()
    assert contents[0] != contents[1]
    page.wait_for_selector("dialog[data-rows]", state="attached")
    pair.first.click()
    page.wait_for_selector("dialog[open]")
    assert page.locator("dialog .tag.a").inner_text() == f"A {first}, step 75"
    assert page.locator("dialog .tag.b").inner_text() == "B workspace, step 75"
    address_now = parse_qs(urlsplit(page.url).query)
    assert (address_now["one"], address_now["a"], address_now["look"]) == ([first], ["A"], ["red_shoes-0"])
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    assert troubles == []
    assert git(root, "status", "--porcelain") == before, "nothing was checked out or written"


def test_a_trial_is_typed_shown_and_not_run_before_it_is_asked_for(page: Any, address: str, root: Path) -> None:
    page.goto(f"{address}/experiments?trial=train.rank")
    field = page.locator(".st-key-trial-train-rank input")
    field.fill("4, nonsense")
    field.press("Enter")
    page.wait_for_selector(".lp-problem:has-text('must be a whole number')")
    assert page.locator(".st-key-queue-trial").count() == 0
    field.fill("4, 16")
    field.press("Enter")
    page.wait_for_selector("code:has-text('dvc exp run --queue -S train.rank=4,16')")
    page.wait_for_selector("button:has-text('Queue 2 trials')")
    assert not (root / ".dvc" / "tmp" / "exps" / "celery").exists() or not list(
        (root / ".dvc" / "tmp" / "exps" / "celery").glob("broker/in/*.celery.msg")
    )


def test_names_stay_in_sight_and_a_phone_scrolls_in_the_table_alone(browser: Any, address: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.goto(f"{address}/experiments?commits=true")
    page.wait_for_selector(".lp-experiments td")
    scroll = page.locator(".lp-scroll:has(.lp-experiments)")
    name = page.locator(".lp-experiments tbody th").first
    at_first = name.bounding_box()["x"]
    scroll.evaluate("box => { box.scrollLeft = 120 }")
    after = name.bounding_box()["x"]
    widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    context.close()
    assert after == at_first, "the first column is frozen"
    assert widths[0] <= widths[1]


def test_a_trial_that_is_queued_elsewhere_shows_by_itself(
    page: Any, serve: Callable[[Path], str], tmp_path: Path
) -> None:
    root = two_commits(tmp_path)
    page.goto(f"{serve(root)}/experiments")
    page.wait_for_selector(".lp-experiments td")
    assert page.locator(".lp-trial").count() == 0
    dvc(root, "exp", "run", "--queue", "-S", "train.rank=4")
    page.wait_for_selector(".lp-trial.queued:has-text('train.rank')")
