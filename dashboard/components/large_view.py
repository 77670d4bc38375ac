"""Two checkpoints of one prompt and seed, large: wipe, fade, difference, side by side. It feeds the browser.

What happens on the screen is in large_view.js, which needs no further answer of the server; what is looked at lives in
the address (look, a, b, view), and junk there opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.components.compare_filters import step_value
from dashboard.image_route import PREVIEW_SIDE_PX, picture_url, preview_url
from loupe.metric_specs import MetricSpec
from loupe.records import PromptRecord
from loupe.reproduce import reproduce_command
from loupe.run_files import Cells
from loupe.run_samples import SampleKey, SampleView
from loupe.wording import number, step_label

KEY = "large-view"
_FILES = {kind: Path(__file__).with_name(f"large_view.{kind}") for kind in ("html", "css", "js")}


def large_view(facts: Mapping[str, Any], on_turn: Callable[[], None]) -> None:
    """Mount the view; `on_turn` is called when the reviewer walks past the first or last row of the page."""
    sources = {kind: file.read_text(encoding="utf-8") for kind, file in _FILES.items()}
    mount = st.components.v2.component("loupe_large_view", **sources)
    mount(key=KEY, data=dict(facts), on_turn_change=on_turn)


def large_view_facts(
    samples: Iterable[SampleView],
    prompts: Mapping[str, PromptRecord],
    per_image: Mapping[SampleKey, Cells],
    specs: Sequence[MetricSpec],
    *,
    steps: Sequence[int],
    against_base: int,
    natural_px: int,
    page: tuple[int, int],
) -> dict[str, Any]:
    """Return what the browser needs, as JSON values: a row per prompt and seed in the order given, a cell per step.

    `against_base` is the step that the base model is compared with when its own picture is opened; `page` is
    (this page, number of pages), from 1.
    """
    rows: dict[str, dict[str, Any]] = {}
    for sample in samples:
        name = f"{sample.prompt_id}-{sample.seed_index}"
        row = rows.get(name)
        if row is None:
            row = rows[name] = _row(name, sample, prompts[sample.prompt_id])
        row["cells"][step_value(sample.step)] = _cell(sample, per_image.get(sample.key), specs, natural_px)
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


def _cell(sample: SampleView, values: Cells | None, specs: Sequence[MetricSpec], natural_px: int) -> dict[str, Any]:
    thumbnail = preview_url if natural_px > PREVIEW_SIDE_PX else picture_url
    return {
        "sha256": sample.sha256,
        "url": picture_url(sample.sha256) if sample.sha256 else None,
        "thumbnail": thumbnail(sample.sha256) if sample.sha256 else None,
        "status": sample.status,
        "reason": sample.reason,
        "scores": [_score(spec, values) for spec in specs if values and spec.image_column in values],
        "step": str(sample.step),
    }


def _score(spec: MetricSpec, values: Cells) -> list[str]:
    value = values[spec.image_column or spec.key]
    if spec.unit == "share" and value in (0, 1):
        return [spec.label, "yes" if value else "no"]
    return [spec.label, number(float(value), unit=spec.unit)]
