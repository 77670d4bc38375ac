"""A page that stays open while the run goes on: every picture and score shows, and the reviewer's place is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loupe.atomic_io import write_bytes
from loupe.paths import ProjectPaths
from tests.run_fixture import Shape, draw_sample, paint_shoe, prompts_of, running_run, write_samples
from tests.run_parts import write_evaluation, write_selection

pytestmark = pytest.mark.browser
SHAPE = Shape(size_px=128)
PLACE = "document.querySelector('.st-key-lp-grid').scrollTop"


def test_pictures_show_as_they_are_drawn_and_then_the_finished_set(
    page: Any, serve: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = running_run(tmp_path_factory.mktemp("live"), SHAPE)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{serve(root)}/compare?seed=1")
    page.wait_for_selector(".lp-prompt .lp-img")
    waiting = 3 * len(prompts_of(SHAPE))
    page.wait_for_function(f"document.querySelectorAll('.lp-prompt .lp-tile.waiting').length === {waiting}")
    page.locator(".lp-prompt").last.scroll_into_view_if_needed()
    scrolled = page.evaluate(PLACE)
    assert scrolled > 0

    for step in SHAPE.steps[1:]:
        for prompt in prompts_of(SHAPE):
            picture = draw_sample(prompt, 1, step, SHAPE, paint_shoe)
            write_bytes(ProjectPaths(root).samples / f"{prompt.prompt_id}-1" / f"{step:06d}.png", picture)
            time.sleep(0.05)
    page.wait_for_selector(".lp-prompt .lp-tile.waiting", state="detached")
    count = len(SHAPE.all_steps) * len(prompts_of(SHAPE))
    page.wait_for_function(f"document.querySelectorAll('.lp-prompt .lp-img').length === {count}")

    write_samples(root, SHAPE, paint_shoe)
    page.wait_for_selector(".lp-prompt .lp-flag")  # only the manifest says that one is invalid
    assert page.locator(".lp-prompt .lp-seed").all_inner_texts()[0].startswith("seed 1")
    assert page.evaluate(PLACE) == scrolled
    assert "seed=1" in page.url
    assert complaints == []


def test_scores_and_the_decision_show_on_an_open_overview(
    page: Any, serve: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = running_run(tmp_path_factory.mktemp("scored"), SHAPE)
    page.goto(serve(root))
    page.wait_for_selector("h1:has-text('No recommendation yet')")
    assert page.locator(".lp-scores").count() == 0
    write_samples(root, SHAPE, paint_shoe)
    write_evaluation(root, SHAPE)
    page.wait_for_selector(".lp-scores")
    write_selection(root, SHAPE)
    page.wait_for_selector("h1:has-text('Ship step 300')")
