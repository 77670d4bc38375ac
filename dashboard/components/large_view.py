"""Two pictures of one prompt and seed, large: wipe, fade, difference, side by side. It feeds the browser.

What happens on the screen is in large_view*.js, which need no further answer of the server; what is looked at lives in
the address (look, a, b, view), and junk there opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.components.compare_filters import step_value
from dashboard.image_route import picture_url, preview_url
from dashboard.pictures import PREVIEW_SIDE_PX
from loupe.metric_specs import MetricSpec
from loupe.records import CaptionRecord, PromptRecord
from loupe.reproduce import reproduce_command
from loupe.run_files import Cells
from loupe.run_samples import SampleKey, SampleView
from loupe.wording import number, step_label

KEY = "large-view"
_HERE = Path(__file__).parent
_FILES = {
    "html": ("large_view.html",),
    "css": ("large_view.css",),
    "js": ("large_view_camera.js", "large_view_facts.js", "large_view.js"),
}
"""The scripts are joined to one module, because a component takes one."""


def large_view(facts: Mapping[str, Any], on_turn: Callable[[], None] = lambda: None) -> None:
    """Mount the view; `on_turn` is called when the reviewer walks past the first or last row of the page."""
    sources = {
        kind: "\n".join((_HERE / name).read_text(encoding="utf-8") for name in names) for kind, names in _FILES.items()
    }
    mount = st.components.v2.component("loupe_large_view", **sources)
    mount(key=KEY, data=dict(facts), on_turn_change=on_turn)


def large_view_facts(
    samples: Iterable[SampleView],
    prompts: Mapping[str, PromptRecord],
    per_image: Mapping[SampleKey, Cells],
    specs: Sequence[MetricSpec],
    photos: Mapping[str, CaptionRecord],
    *,
    gates: Collection[str],
    steps: Sequence[int],
    against_base: int,
    natural_px: int,
    page: tuple[int, int],
) -> dict[str, Any]:
    """Return what the browser needs, as JSON values: a row per prompt and seed in the order given, a cell per step.

    `photos` are the training photos that pictures lie nearest to, by id; `gates` the columns that say yes or no.
    `against_base` is the step that the base model is compared with when its own picture is opened; `page` is (this
    page, number of pages), from 1.
    """
    rows: dict[str, dict[str, Any]] = {}
    for sample in samples:
        name = f"{sample.prompt_id}-{sample.seed_index}"
        row = rows.get(name)
        if row is None:
            row = rows[name] = _row(name, sample, prompts[sample.prompt_id])
        values = per_image.get(sample.key)
        cell = picture_facts(sample.sha256, values, specs, gates, natural_px=natural_px) | {
            "reason": sample.reason,
            "step": str(sample.step),
            "nearest": _nearest(values, photos, natural_px),
        }
        row["cells"][step_value(sample.step)] = cell
    return {
        "rows": list(rows.values()),
        "steps": [{"name": step_value(step), "label": step_label(step)} for step in steps],
        "against_base": step_value(against_base),
        "natural_px": natural_px,
        "page": page[0],
        "n_pages": page[1],
    }


def _row(name: str, sample: SampleView, prompt: PromptRecord) -> dict[str, Any]:
    before, after = reproduce_command(prompt_id=prompt.prompt_id, text=prompt.text, seed_index=sample.seed_index)
    return {
        "id": name,
        "prompt_id": prompt.prompt_id,
        "prompt": prompt.text,
        "seed_index": sample.seed_index,
        # As text: a seed has up to 63 bits, and a number of JavaScript keeps 53.
        "seed": None if sample.seed is None else str(sample.seed),
        "command": [before, after],
        "cells": {},
    }


def picture_facts(
    sha256: str | None, values: Cells | None, specs: Sequence[MetricSpec], gates: Collection[str], *, natural_px: int
) -> dict[str, Any]:
    """Return one cell: the picture's addresses, and its scores as [name, value] texts."""
    return {
        "sha256": sha256,
        "url": picture_url(sha256) if sha256 else None,
        "thumbnail": _thumbnail(sha256, natural_px) if sha256 else None,
        "scores": [_score(spec, values, gates) for spec in specs if values and spec.image_column in values],
    }


def _thumbnail(sha256: str, natural_px: int) -> str:
    return preview_url(sha256) if natural_px > PREVIEW_SIDE_PX else picture_url(sha256)


def _nearest(values: Cells | None, photos: Mapping[str, CaptionRecord], natural_px: int) -> dict[str, Any] | None:
    known = values or {}
    image_id, distance, flagged = (known.get(name) for name in ("nearest_train", "nearest_train_distance", "memorised"))
    if not image_id or not isinstance(distance, float):
        return None
    photo = photos.get(str(image_id))
    verdict = {
        0.0: "no nearer than photos it never saw",
        1.0: "nearer than all but 5 % of the photos it never saw: is it a copy?",
    }
    return {
        "id": str(image_id),
        "distance": number(distance),
        "verdict": verdict.get(flagged, "") if isinstance(flagged, float) else "",
        "caption": photo.caption if photo else "",
        "url": picture_url(photo.sha256) if photo else None,
        "thumbnail": _thumbnail(photo.sha256, natural_px) if photo else None,
    }


def _score(spec: MetricSpec, values: Cells, gates: Collection[str]) -> list[str]:
    value = values[spec.image_column or spec.key]
    if spec.image_column in gates:
        return [spec.label, "yes" if value else "no"]
    return [spec.label, number(float(value), unit=spec.unit)]
