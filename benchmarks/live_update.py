"""How soon an open page shows a checkpoint or a score that has just been written, and whether it keeps its place.

A finished run is set back by one checkpoint, which then lands as `generate` would write it: the manifest, atomically.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.review_browser import GRID, STRIPS, wait_for_pictures
from benchmarks.review_run import without_last_checkpoint
from loupe.atomic_io import write_bytes, write_record
from loupe.paths import ProjectPaths
from loupe.records import SamplesManifest

GRID_TOP = "document.querySelector('.st-key-lp-grid').scrollTop"


def live_updates(page: Any, address: str, root: Path, *, repeats: int) -> dict[str, Any]:
    """Return seconds from the write to its sight on an open page, and whether scrolling and filters stayed."""
    checkpoints, places = [], []
    for _ in range(repeats):
        landed_s, kept = _new_checkpoint(page, address, root)
        checkpoints.append(landed_s)
        places.append(kept)
    metrics = [_new_metric(page, address, root, value=41.0 + turn) for turn in range(repeats)]
    return {"live_checkpoint_s": checkpoints, "live_metric_s": metrics, "live_keeps_the_place": all(places)}


def _new_checkpoint(page: Any, address: str, root: Path) -> tuple[float, bool]:
    file = ProjectPaths(root).samples / "manifest.json"
    whole = file.read_bytes()
    manifest = SamplesManifest.model_validate_json(whole)
    write_record(file, without_last_checkpoint(manifest))
    cells = "document.querySelectorAll('.lp-head .lp-cell').length"
    try:
        page.goto(f"{address}/compare?seed=1&seed=2")
        page.wait_for_function(f"{cells} === {len(manifest.steps) - 1}")
        wait_for_pictures(page, GRID, "-[12]/")
        page.evaluate("document.querySelectorAll('.lp-prompt')[2].scrollIntoView()")
        wait_for_pictures(page, GRID, "-[12]/")
        place = page.evaluate(GRID_TOP)
        started = time.perf_counter()
        write_bytes(file, whole)
        page.wait_for_function(f"{cells} === {len(manifest.steps)}", polling="raf")
        landed_s = time.perf_counter() - started
    finally:
        write_bytes(file, whole)
    same_seeds = (
        page.locator(".lp-prompt a.lp-shot[data-look*='-0/'], .lp-prompt a.lp-shot[data-look*='-3/']").count() == 0
    )
    return landed_s, bool(place > 0 and page.evaluate(GRID_TOP) == place and same_seeds and "seed=1" in page.url)


def _new_metric(page: Any, address: str, root: Path, *, value: float) -> float:
    file = ProjectPaths(root).metrics / "checkpoints.csv"
    before = file.read_text(encoding="utf-8")
    header, *rows = before.splitlines()
    cells = rows[-1].split(",")
    cells[header.split(",").index("clip_demo")] = str(value)
    try:
        page.goto(address)
        wait_for_pictures(page, STRIPS)
        page.wait_for_selector(".lp-scores")
        started = time.perf_counter()
        write_bytes(file, "\n".join([header, *rows[:-1], ",".join(cells), ""]).encode())
        page.wait_for_function(
            f"[...document.querySelectorAll('.lp-scores td')].some((c) => c.innerText.includes('{value:.1f}'))"
        )
        return time.perf_counter() - started
    finally:
        write_bytes(file, before.encode())
