"""The Compare page: the same prompt and seed across every checkpoint, in original pixels, with each picture's scores.

Every choice lives in the address, so a comparison is a link; junk in it falls back to showing everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import streamlit as st

from dashboard.components.markup import state_banner
from dashboard.components.sample_grid import GridLook, grid_header, prompt_rows
from dashboard.components.wording import number
from dashboard.current_run import current_store
from loupe.metric_specs import metric_specs
from loupe.records import BASE_STEP, PromptRecord
from loupe.run_state import run_state
from loupe.run_store import RunStore

PROMPTS_PER_PAGE = 8
ZOOMS = {"½×": 0.5, "1×": 1.0, "2×": 2.0}
LARGE_PICTURE_PX = 200
"""Pictures wider than this start at half size, so that several checkpoints fit side by side."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What the reviewer wants to see."""

    prompts: tuple[PromptRecord, ...]
    steps: tuple[int, ...]
    seed_indices: tuple[int, ...]
    zoom: float


def show(store: RunStore) -> None:
    """Show the page."""
    state = run_state(store)
    banner = state_banner(state)
    if banner:
        st.html(banner)
    prompts, steps = store.prompts(), store.steps()
    if not prompts or not steps:
        st.html(
            '<header class="lp-headline"><h1>No pictures to compare yet</h1><p>They are drawn by the stage '
            "<code>generate</code>; <code>dvc repro</code> runs it and what it needs.</p></header>"
        )
        return
    natural_px = _natural_px(store)
    choice = _choose(store, prompts, steps, natural_px)
    if not choice.prompts:
        st.html(f'<p class="lp-empty">No prompt holds “{escape(st.session_state["q"])}”.</p>')
        return
    grid, n_pages = st.container(), -(-len(choice.prompts) // PROMPTS_PER_PAGE)
    page = st.pagination(n_pages, key="page", bind="query-params") if n_pages > 1 else 1
    with grid:
        _show_grid(store, choice.prompts[(page - 1) * PROMPTS_PER_PAGE : page * PROMPTS_PER_PAGE], choice, natural_px)


def _choose(store: RunStore, prompts: Sequence[PromptRecord], steps: Sequence[int], natural_px: int) -> Choice:
    """Show the filters and return what they let through; an empty filter lets all through."""
    by_name = {"base" if step == BASE_STEP else str(step): step for step in steps}
    manifest, params = store.samples_manifest(), store.params()
    n_seeds = manifest.seeds_per_prompt if manifest else params.generate.seeds_per_prompt if params else 1
    default = "½×" if natural_px > LARGE_PICTURE_PX else "1×"
    with st.container(key="lp-filters"):
        words, picked = st.columns([3, 7])
        query = words.text_input(
            "Search prompts", key="q", placeholder="red, sneaker …", bind="query-params", live=True, type="search"
        )
        chosen = picked.multiselect(
            "Prompts", [p.prompt_id for p in prompts], key="prompt", bind="query-params", placeholder="all"
        )
        with st.container(horizontal=True, gap="medium"):
            step_filter = st.pills(
                "Checkpoints", list(by_name), key="step", selection_mode="multi", bind="query-params"
            )
            seed_filter = st.pills(
                "Seeds", list(range(n_seeds)), key="seed", selection_mode="multi", bind="query-params"
            )
            zoom = st.segmented_control(
                "Size", list(ZOOMS), key="zoom", default=default, bind="query-params", required=True
            )
    return Choice(
        prompts=tuple(p for p in prompts if (not chosen or p.prompt_id in chosen) and _holds(p, query or "")),
        steps=tuple(step for name, step in by_name.items() if not step_filter or name in step_filter),
        seed_indices=tuple(seed_filter or range(n_seeds)),
        zoom=ZOOMS[zoom or default],
    )


def _holds(prompt: PromptRecord, query: str) -> bool:
    haystack = f"{prompt.prompt_id} {prompt.text}".casefold()
    return all(word in haystack for word in query.casefold().split())


def _show_grid(store: RunStore, shown: Sequence[PromptRecord], choice: Choice, natural_px: int) -> None:
    look = GridLook(
        steps=choice.steps,
        side_px=round(natural_px * choice.zoom),
        natural_px=natural_px,
        image_specs=tuple(column.spec for column in store.metrics() if column.spec.image_column),
        selection=store.selection(),
    )
    per_image = store.per_image()
    with st.container(key="lp-grid"):
        with st.container(key="lp-grid-head"):
            st.html(grid_header(look, _header_notes(store)))
        for place, prompt in enumerate(shown):
            samples = store.samples(
                prompt_ids={prompt.prompt_id}, seed_indices=set(choice.seed_indices), steps=set(choice.steps)
            )
            st.html(prompt_rows(prompt, samples, per_image, look, is_first=place == 0))


def _header_notes(store: RunStore) -> dict[int, str]:
    """Return for each step the scores that checkpoints are ordered by."""
    ranking = [spec for spec in metric_specs().values() if spec.ranks]
    return {
        row.step: ", ".join(
            f"{spec.key} {number(row.scores[spec.key].value, unit=spec.unit)}"
            for spec in ranking
            if spec.key in row.scores
        )
        for row in store.scores()
    }


def _natural_px(store: RunStore) -> int:
    manifest, params = store.samples_manifest(), store.params()
    if manifest:
        return manifest.width_px
    return params.data.resolution if params else LARGE_PICTURE_PX


show(current_store())
