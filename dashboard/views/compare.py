"""The Compare page: the same prompt and seed across every checkpoint, in original pixels, with each picture's scores.

Every choice lives in the address, so a comparison is a link; junk in it falls back to showing everything. A click on a
picture opens it large beside another checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

import streamlit as st

from dashboard.components.compare_filters import LARGE_PICTURE_PX, Choice, choose, gates_of
from dashboard.components.large_view import KEY, large_view, large_view_facts
from dashboard.components.markup import headline, state_banner
from dashboard.components.sample_grid import GridLook, grid_header, prompt_rows
from dashboard.components.sample_wall import sample_wall
from dashboard.current_run import current_store
from loupe.dataset_view import train_photos
from loupe.records import PromptRecord
from loupe.run_samples import SampleView
from loupe.run_state import run_state
from loupe.run_store import RunStore
from loupe.sample_order import Row
from loupe.wording import number

PICTURES_PER_PAGE = 128
"""About so many: enough to scroll through for a while, few enough that a turn of the page is not waited for."""
MAX_PROMPTS_PER_PAGE = 8
SEED_INDEX = re.compile(r"[0-9]{1,9}")


def show(store: RunStore) -> None:
    """Show the page."""
    state = run_state(store)
    banner = state_banner(state)
    if banner:
        st.html(banner)
    prompts, steps = store.prompts(), store.steps()
    if not prompts or not steps:
        st.html(
            headline(
                "No pictures to compare yet",
                "They are drawn by the stage <code>generate</code>; <code>dvc repro</code> runs it and what it needs.",
            )
        )
        return
    natural_px = _natural_px(store)
    choice = choose(store, prompts, steps, natural_px)
    if not choice.rows:
        query = st.session_state.get("q")
        said = f"No prompt holds “{escape(query)}” and passes the other" if query else "No picture passes these"
        st.html(f'<p class="lp-empty">{said} filters.</p>')
        return
    rows_per_page = _rows_per_page(choice)
    grid, n_pages = st.container(), -(-len(choice.rows) // rows_per_page)
    page = st.pagination(n_pages, key="page", bind="query-params") if n_pages > 1 else 1
    rows = choice.rows[(page - 1) * rows_per_page : page * rows_per_page]
    look = _look(store, choice, natural_px)
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    with grid:
        if choice.layout == "wall":
            _show_wall(store, rows, by_id, choice, look)
        else:
            _show_grid(store, rows, by_id, look)
    _mount_large_view(store, rows, by_id, look, page=(page, n_pages))


def _rows_per_page(choice: Choice) -> int:
    """Return how many rows a page has: whole prompts, and no more pictures than can be shown at once."""
    pictures_per_row = len(choice.steps) if choice.layout == "grid" else 1
    prompts = PICTURES_PER_PAGE // (pictures_per_row * choice.n_seeds)
    return max(1, min(MAX_PROMPTS_PER_PAGE, prompts)) * choice.n_seeds


def _look(store: RunStore, choice: Choice, natural_px: int) -> GridLook:
    return GridLook(
        steps=choice.steps,
        side_px=round(natural_px * choice.zoom),
        natural_px=natural_px,
        image_specs=tuple(c.spec for c in store.metrics() if c.spec.image_column and c.spec.headline),
        gates=gates_of(store),
        selection=store.selection(),
    )


def _show_grid(store: RunStore, rows: Sequence[Row], prompts: dict[str, PromptRecord], look: GridLook) -> None:
    per_image = store.per_image()
    with st.container(key="lp-grid"):
        with st.container(key="lp-grid-head"):
            st.html(grid_header(look, _header_notes(store)))
        for place, (prompt_id, group) in enumerate(groupby(rows, key=lambda row: row[0])):
            samples = store.samples(
                prompt_ids={prompt_id}, seed_indices={seed for _, seed in group}, steps=set(look.steps)
            )
            st.html(prompt_rows(prompts[prompt_id], samples, per_image, look, is_first=place == 0))


def _show_wall(
    store: RunStore, rows: Sequence[Row], prompts: dict[str, PromptRecord], choice: Choice, look: GridLook
) -> None:
    texts = {prompt_id: prompt.text for prompt_id, prompt in prompts.items()}
    st.html(sample_wall(_in_order(store, rows, {choice.at}), texts, store.per_image(), look))


def _in_order(store: RunStore, rows: Sequence[Row], steps: set[int]) -> Iterator[SampleView]:
    """Yield the pictures of the rows, row by row in their order."""
    found: dict[Row, list[SampleView]] = {row: [] for row in rows}
    for sample in store.samples(prompt_ids={prompt_id for prompt_id, _ in rows}, steps=steps):
        if (row := (sample.prompt_id, sample.seed_index)) in found:
            found[row].append(sample)
    for samples in found.values():
        yield from samples


def _mount_large_view(
    store: RunStore, rows: Sequence[Row], prompts: dict[str, PromptRecord], look: GridLook, *, page: tuple[int, int]
) -> None:
    """Give the large view this page's rows, and the one that the address names wherever it stands."""
    steps = store.steps()
    asked = str(st.query_params.get("look", "")).rpartition("-")
    named = (asked[0], int(asked[2])) if asked[0] in prompts and SEED_INDEX.fullmatch(asked[2]) else None
    shown = [*rows, named] if named and named not in rows else rows
    selection = look.selection
    chosen = selection.step if selection and selection.step in steps else steps[-1]

    def turn() -> None:
        way = st.session_state[KEY].turn
        st.session_state["page"] = min(page[1], max(1, page[0] + way))

    per_image = store.per_image()
    near = {str(per_image.get((*row, step), {}).get("nearest_train", "")) for row in shown for step in steps}
    facts = large_view_facts(
        _in_order(store, shown, set(steps)),
        prompts,
        per_image,
        [column.spec for column in store.metrics() if column.spec.image_column],
        train_photos(store, near),
        gates=look.gates,
        steps=steps,
        against_base=chosen or steps[-1],
        natural_px=look.natural_px,
        page=page,
    )
    large_view(facts, turn)


def _header_notes(store: RunStore) -> dict[int, str]:
    """Return for each step the scores that checkpoints are ordered by."""
    ranking = [column.spec for column in store.metrics() if column.spec.ranks]
    return {
        row.step: ", ".join(
            f"{spec.label} {number(row.scores[spec.key].value, unit=spec.unit)}"
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
