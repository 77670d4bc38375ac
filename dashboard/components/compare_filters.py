"""What the Compare page lets through and in which order: its filters, all kept in the address. It shows no picture.

Junk in the address falls back to showing everything, in the order of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import streamlit as st

from loupe.metric_specs import MetricSpec
from loupe.records import BASE_STEP, PromptRecord
from loupe.run_files import Cells
from loupe.run_samples import SampleKey
from loupe.run_scores import MetricColumn
from loupe.run_store import RunStore
from loupe.sample_order import (
    INVALID,
    RUN_ORDER,
    Row,
    SampleOrder,
    failed_gates,
    gate_columns,
    sample_orders,
    sorted_rows,
)

ZOOMS = {"½×": 0.5, "1×": 1.0, "2×": 2.0}
LARGE_PICTURE_PX = 200
"""Pictures wider than this start at half size, so that several checkpoints fit side by side."""
TYPING_PAUSE = "120ms"
"""A search begins when no key was pressed for so long."""
GRID, WALL = "All checkpoints", "One step"


@dataclass(frozen=True, slots=True)
class Choice:
    """What the reviewer wants to see."""

    rows: tuple[Row, ...]
    steps: tuple[int, ...]
    at: int
    """The step that rows are sorted and filtered by, and that the wall shows."""
    layout: Literal["grid", "wall"]
    zoom: float
    n_seeds: int


def step_value(step: int) -> str:
    """Return how a step stands in the address."""
    return "base" if step == BASE_STEP else str(step)


def choose(store: RunStore, prompts: Sequence[PromptRecord], steps: Sequence[int], natural_px: int) -> Choice:
    """Show the filters and return what they let through; an empty filter lets all through."""
    manifest, params = store.samples_manifest(), store.params()
    n_seeds = manifest.seeds_per_prompt if manifest else params.generate.seeds_per_prompt if params else 1
    specs = tuple(column.spec for column in store.metrics() if column.spec.image_column)
    by_name = {step_value(step): step for step in steps}
    size = "½×" if natural_px > LARGE_PICTURE_PX else "1×"
    with st.container(key="lp-filters"):
        which = st.expander("Which pictures", expanded=_is_wide() or _is_filtered(), icon=":material/filter_list:")
        with which, st.container(horizontal=True, gap="medium"):
            shown = _prompt_filter(prompts)
            step_filter = st.pills(
                "Checkpoints", list(by_name), key="step", selection_mode="multi", bind="query-params"
            )
            seed_filter = st.pills(
                "Seeds", list(range(n_seeds)), key="seed", selection_mode="multi", bind="query-params"
            )
        with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
            layout, at, order, only = _order_filter(store, by_name, specs)
            zoom = st.segmented_control(
                "Size", list(ZOOMS), key="zoom", default=size, bind="query-params", required=True
            )
    rows = [(p.prompt_id, seed) for p in shown for seed in (sorted(seed_filter) or range(n_seeds))]
    per_image = store.per_image()
    if only:
        rows = [row for row in rows if failed_gates(per_image.get((*row, at)), specs) & only]
    texts = {prompt.prompt_id: prompt.text for prompt in prompts}
    return Choice(
        rows=tuple(sorted_rows(rows, texts, per_image, order=order, step=at)),
        steps=tuple(step for name, step in by_name.items() if not step_filter or name in step_filter),
        at=at,
        layout="wall" if layout == WALL else "grid",
        zoom=ZOOMS[zoom or size],
        n_seeds=len(seed_filter or range(n_seeds)),
    )


def _is_wide() -> bool:
    """Whether there is room for the filters above the pictures: not on a phone, which says that it is one."""
    return "Mobi" not in (st.context.headers.get("User-Agent") or "")


def _is_filtered() -> bool:
    return any(name in st.query_params for name in ("q", "prompt", "colour", "step", "seed"))


def _prompt_filter(prompts: Sequence[PromptRecord]) -> list[PromptRecord]:
    colours = sorted({prompt.colour for prompt in prompts if prompt.colour}, key=str.casefold)
    query = st.text_input(
        "Search prompts",
        key="q",
        placeholder="red, sneaker …",
        bind="query-params",
        live=TYPING_PAUSE,
        type="search",
        width=190,
    )
    chosen = st.multiselect(
        "Prompts", [p.prompt_id for p in prompts], key="prompt", bind="query-params", placeholder="all", width=220
    )
    tint = []
    if colours:
        tint = st.multiselect(
            "Colour asked for", colours, key="colour", bind="query-params", placeholder="any colour", width=180
        )
    return [
        prompt
        for prompt in prompts
        if (not chosen or prompt.prompt_id in chosen)
        and (not tint or prompt.colour in tint)
        and _holds(prompt, query or "")
    ]


def _order_filter(
    store: RunStore, by_name: dict[str, int], specs: Sequence[MetricSpec]
) -> tuple[str, int, SampleOrder, frozenset[str]]:
    """Show layout, the one step slider, order and gates; return them."""
    names, selection = list(by_name), store.selection()
    default = step_value(selection.step) if selection and selection.step in by_name.values() else names[-1]
    gates = gates_of(store)
    gate_of = {INVALID: INVALID, **{column.removesuffix("_ok"): column for column in sorted(gates)}}
    orders = {order.name: order for order in sample_orders(specs, gates)}
    layout = st.segmented_control("Show", [GRID, WALL], key="layout", default=GRID, bind="query-params", required=True)
    at = default
    if len(names) > 1:
        at = st.select_slider("Step", names, key="at", value=default, bind="query-params", width=250)
    name = st.selectbox("Sort, at this step, by", list(orders), key="sort", bind="query-params", width=230)
    only = []
    if specs:
        only = st.multiselect(
            "Only those that, at this step, fail", list(gate_of), key="only", bind="query-params",
            placeholder="nothing", width=230,
        )  # fmt: skip
    return layout or GRID, by_name[at], orders.get(name, RUN_ORDER), frozenset(gate_of[label] for label in only)


def gates_of(store: RunStore) -> frozenset[str]:
    """Return the columns of metrics/per_image.csv that say yes or no of a picture."""
    return store.files.derived("gates", _gates, store.metrics(), store.per_image())


def _gates(metrics: Sequence[MetricColumn], per_image: Mapping[SampleKey, Cells]) -> frozenset[str]:
    return frozenset(gate_columns((column.spec for column in metrics), per_image))


def _holds(prompt: PromptRecord, query: str) -> bool:
    haystack = f"{prompt.prompt_id} {prompt.text}".casefold()
    return all(word in haystack for word in query.casefold().split())
