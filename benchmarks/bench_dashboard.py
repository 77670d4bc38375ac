"""How long a reviewer waits, and what the dashboard's server needs: a real server, a real Chromium, drawn pictures.

    python -m benchmarks.bench_dashboard

Two runs are drawn in a temporary folder (--runs keeps them for the next time): 7 checkpoints and the base model, each
with 64 prompts and 4 seeds at 512 px, and one of 20,000 pictures. Nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import review_browser as review
from benchmarks.live_update import live_updates
from benchmarks.report import keep, spread
from benchmarks.review_run import write_review_run
from tests.browser.conftest import FLAGS
from tests.browser.dashboard_server import DashboardServer, start_server
from tests.run_shape import Shape, prompts_of

STEPS = tuple(range(100, 800, 100))
USUAL = Shape(steps=STEPS, seeds=4, size_px=512, captions=60)
LARGE = Shape(steps=STEPS, seeds=4, size_px=512, captions=621)
BARS = {
    "server_up_s": 3.0, "overview_headline_s": 2.0, "overview_pictures_s": 2.0, "page_switch_s": 0.5,
    "step_slider_s": 0.5, "seed_filter_s": 0.5, "search_s": 0.5, "next_page_s": 0.5,
    "next_page_without_previews_s": 0.5,
    "compare_first_view_mb": 3.0, "server_memory_mb": 500.0, "live_checkpoint_s": 3.0, "live_metric_s": 3.0,
}  # fmt: skip
CLICKS_PER_ROUND = 15
OTHER_PAGES = ("Vote", "Training", "Data", "Experiments", "Report")
PREVIEWS_LIMIT_S = 900


def main() -> None:
    options = _parser().parse_args()
    with _folder(options.runs) as runs:
        usual, large = _run(runs / "usual", USUAL, grainy=True), _run(runs / "large", LARGE, grainy=False)
        with _chromium() as browser:
            measured = {**measure_starts(browser, usual, repeats=options.repeats)}
            measured |= measure_waiting(browser, usual, repeats=options.repeats)
            memory = measure_memory(browser, large, clicks=options.clicks)
            chromium = browser.version
    measured["server_memory_mb"] = memory["after_each_15_clicks_mb"]
    content = {
        "setting": {
            "pictures": _count(USUAL), "pictures_of_the_large_run": _count(LARGE), "side_px": USUAL.size_px,
            "viewport_px": list(review.VIEWPORT.values()), "repeats": options.repeats, "chromium": chromium,
            "streamlit": version("streamlit"),
        },
        **{name: {"bar": bar, **spread(measured[name])} for name, bar in BARS.items()},
        "compare_first_view": measured["first_view"],
        "previews_ahead_s": measured["previews_ahead_s"],
        "live_keeps_the_place": measured["live_keeps_the_place"],
        "server_memory": memory,
    }  # fmt: skip
    print(json.dumps(content, indent=1))
    print(table(measured))
    print(f"kept in {keep('dashboard', content)}")


def measure_starts(browser: Any, root: Path, *, repeats: int) -> dict[str, list[float]]:
    """Start the server and open Overview with an empty cache, several times; the first time no preview is there."""
    found: dict[str, list[float]] = {"server_up_s": [], "overview_headline_s": [], "overview_pictures_s": []}
    _forget_previews(root)
    for _ in range(repeats):
        with _server(root) as server, review.new_page(browser) as page:
            found["server_up_s"].append(server.up_s)
            painted = review.first_paint(page, server.address)
            found["overview_headline_s"].append(painted["headline"])
            found["overview_pictures_s"].append(painted["pictures"])
    return found


def measure_waiting(browser: Any, root: Path, *, repeats: int) -> dict[str, Any]:
    """Return the first view's MB and every waiting time in seconds: before any preview is there, and after."""
    measured: dict[str, Any] = {}
    _forget_previews(root)
    with _server(root) as server:
        address, started = server.address, time.monotonic()
        measured["first_view"] = review.first_view_bytes(browser, address)
        measured["compare_first_view_mb"] = [measured["first_view"]["all_mb"]]
        with review.new_page(browser) as page:
            measured["next_page_without_previews_s"] = review.page_turns(page, address, first=9, repeats=repeats)
        _wait_for_previews(root, _count(USUAL))
        measured["previews_ahead_s"] = round(time.monotonic() - started)
        for name, act in (
            ("page_switch_s", lambda page: review.page_switches(page, address, repeats=repeats)),
            ("step_slider_s", lambda page: review.step_slides(page, address, USUAL.all_steps)),
            ("seed_filter_s", lambda page: review.seed_filters(page, address, repeats=repeats)),
            ("search_s", lambda page: review.searches(page, address, _prompt_ids(USUAL)[-repeats:])),
            ("next_page_s", lambda page: review.page_turns(page, address, first=1, repeats=repeats)),
        ):
            with review.new_page(browser) as page:
                measured[name] = act(page)
            print(name, [round(value, 2) for value in measured[name]], flush=True)
        with review.new_page(browser) as page:
            measured |= live_updates(page, address, root, repeats=repeats)
    return measured


def measure_memory(browser: Any, root: Path, *, clicks: int) -> dict[str, Any]:
    """Return the server's resident memory with 20,000 pictures in the run, in MB, while a reviewer clicks around."""
    prompt_ids, series = _prompt_ids(LARGE), []
    with _server(root) as server, review.new_page(browser) as page:
        at_start = server.resident_mb()
        for turn in range(max(2, clicks // CLICKS_PER_ROUND)):
            review.page_switches(page, server.address, repeats=1)
            review.step_slides(page, server.address, LARGE.all_steps[-2:])
            review.seed_filters(page, server.address, repeats=1)
            review.searches(page, server.address, prompt_ids[10 * turn : 10 * turn + 2])
            review.page_turns(page, server.address, first=1, repeats=2)
            review.visit_all(page, OTHER_PAGES)
            series.append(server.resident_mb())
    return {
        "at_start_mb": round(at_start, 1), "after_each_15_clicks_mb": [round(value, 1) for value in series],
        "growth_after_the_first_15_clicks_mb": round(series[-1] - series[0], 1),
    }  # fmt: skip


def table(measured: dict[str, Any]) -> str:
    """Return bar beside measured, a line each; a bar that the worst value breaks is marked."""
    lines = [f"{'':28}{'bar':>8}{'median':>10}{'worst':>10}"]
    for name, bar in BARS.items():
        values: Sequence[float] = measured[name]
        mark = "" if max(values) < bar else "  over" if statistics.median(values) >= bar else "  worst over"
        lines.append(f"{name:28}{bar:8g}{statistics.median(values):10.3g}{max(values):10.3g}{mark}")
    return "\n".join(lines)


def _count(shape: Shape) -> int:
    return len(prompts_of(shape)) * shape.seeds * len(shape.all_steps)


def _prompt_ids(shape: Shape) -> tuple[str, ...]:
    return tuple(prompt.prompt_id for prompt in prompts_of(shape))


def _forget_previews(root: Path) -> None:
    shutil.rmtree(root / ".work" / "thumbnails", ignore_errors=True)


def _wait_for_previews(root: Path, count: int) -> None:
    """Wait until the server has drawn all previews ahead, as it does while nobody asks for anything."""
    end = time.monotonic() + PREVIEWS_LIMIT_S
    while sum(1 for _ in (root / ".work" / "thumbnails").rglob("*.webp")) < count:
        if time.monotonic() > end:
            raise SystemExit(f"the previews were not drawn within {PREVIEWS_LIMIT_S} s")
        time.sleep(1)


def _run(root: Path, shape: Shape, *, grainy: bool) -> Path:
    started = time.monotonic()
    write_review_run(root, shape, grainy=grainy)
    print(f"the {root.name} run is there after {time.monotonic() - started:.0f} s", flush=True)
    return root


@contextmanager
def _server(root: Path) -> Iterator[DashboardServer]:
    server = start_server(root, root / "server.log")
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def _chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        raise SystemExit("no Chromium is installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept:
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=Path, help="folder that keeps the drawn runs (1 GB) for the next time")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clicks", type=int, default=60)
    return parser


if __name__ == "__main__":
    main()
