"""The Experiments page: every commit and DVC experiment, and any two side by side: parameters, scores, pictures.

Nothing is checked out and nothing is written; running, failed and queued rows show no scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.components.markup import headline, state_banner
from dashboard.components.wall_of_two import wall_of_two
from dashboard.current_run import current_store
from loupe.errors import PipelineError
from loupe.experiments import Experiment, differing, experiments, samples_at, show_pictures_at
from loupe.metric_specs import metric_specs
from loupe.records import BASE_STEP, SamplesManifest
from loupe.run_state import run_state
from loupe.run_store import RunStore
from loupe.vote_html import vote_table
from loupe.wording import number, step_label

MAX_COMMITS = 50
REFRESH_S = 5
PROMPTS_SHOWN = 8
WORKSPACE = "workspace"


@st.cache_data(ttl=REFRESH_S, show_spinner="Reading the experiments …")
def _listed(root: Path) -> tuple[Experiment, ...]:
    return experiments(root, max_commits=MAX_COMMITS)


def show(store: RunStore) -> None:
    """Show the page."""
    if banner := state_banner(run_state(store)):
        st.html(banner)
    try:
        rows = _listed(store.paths.root)
    except PipelineError as error:
        st.html(headline("No experiments here", escape(str(error))))
        return
    n_trials = sum(row.kind == "experiment" for row in rows)
    hint = "" if n_trials else "<code>dvc exp run -S train.learning_rate=3e-4</code> makes one."
    st.html(headline(f"{n_trials} experiment{'s' if n_trials != 1 else ''}", hint))
    st.html(_table(rows))
    _compare(store, rows)


def _table(rows: Sequence[Experiment]) -> str:
    keys = [key for spec in metric_specs().values() for key in (f"{spec.key}_best", f"{spec.key}_last")]
    shown = [key for key in keys if any(key in row.scores for row in rows)]
    lines = []
    for row in rows:
        state = f'<span class="lp-chip old">{escape(row.state)}</span>' if row.state else ""
        origin = f"<small>from {escape(row.baseline)}</small>" if row.baseline else f"<small>{row.kind}</small>"
        cells = [number(row.scores[key]) if key in row.scores else "–" for key in shown]
        lines.append(
            (f"{escape(row.name)}{state}{origin}", _changes(row.changed), *cells, escape(row.created.replace("T", " ")))
        )
    return vote_table(("Revision", "Changed parameters", *shown, "Made"), lines)


def _changes(changed: Mapping[str, tuple[Any, Any]]) -> str:
    return "".join(
        f"<small>{escape(name)}: {escape(str(old))} → <b>{escape(str(new))}</b></small>"
        for name, (old, new) in changed.items()
    )


def _compare(store: RunStore, rows: Sequence[Experiment]) -> None:
    by_name = {row.name: row for row in rows if not row.state}
    if len(by_name) < 2:
        return
    st.html("<h2>Two side by side</h2>")
    names = list(by_name)
    left, right = st.columns(2)
    one = by_name[left.selectbox("A", names, index=1, key="a", bind="query-params")]
    other = by_name[right.selectbox("B", names, index=0, key="b", bind="query-params")]
    if one.rev == other.rev:
        st.html('<p class="lp-empty">Choose two different ones.</p>')
        return
    different = [
        (escape(name), escape(str(before)), escape(str(after)))
        for name, (before, after) in differing(one.params, other.params).items()
    ]
    scores = [
        (escape(key), *(number(row.scores[key]) if key in row.scores else "–" for row in (one, other)))
        for key in dict.fromkeys((*one.scores, *other.scores))
    ]
    head = (escape(one.name), escape(other.name))
    with left:
        st.html(
            "<h3>Parameters that differ</h3>" + (vote_table(("", *head), different) if different else "<p>None.</p>")
        )
    with right:
        st.html("<h3>Scores</h3>" + (vote_table(("", *head), scores) if scores else "<p>Neither has any.</p>"))
    _pictures(store, one, other)


def _pictures(store: RunStore, one: Experiment, other: Experiment) -> None:
    try:
        manifests = [_manifest(store, row) for row in (one, other)]
    except PipelineError as error:
        st.html(f'<p class="lp-empty">{escape(str(error))}</p>')
        return
    steps = []
    for place, (key, row, manifest) in enumerate(zip(("step_a", "step_b"), (one, other), manifests, strict=True)):
        names = {step_label(step): step for step in manifest.steps}
        label = f"Step of {'AB'[place]}: {row.name}"
        chosen = st.selectbox(label, list(names), index=len(names) - 1, key=key, bind="query-params", width=300)
        steps.append(names[chosen])
    sides = []
    for row, manifest, step in zip((one, other), manifests, steps, strict=True):
        samples = [s for s in manifest.samples if s.step == step and s.seed_index == 0]
        there = (
            {s.sha256 for s in samples if s.sha256 and store.sample_file(s.sha256)}
            if row.rev == WORKSPACE
            else show_pictures_at(store, row.rev, samples)
        )
        sides.append({s.prompt_id: s.sha256 if s.sha256 in there else None for s in samples})
    prompts = [prompt for prompt in manifests[0].prompts if prompt.prompt_id in sides[1]][:PROMPTS_SHOWN]
    if not prompts:
        st.html('<p class="lp-empty">The two have no prompt in common.</p>')
        return
    titles = [
        f"{row.name}, {'base model' if step == BASE_STEP else f'step {step}'}"
        for row, step in zip((one, other), steps, strict=True)
    ]
    st.html(wall_of_two(prompts, sides[0], sides[1], titles=(titles[0], titles[1]), side_px=manifests[0].width_px))


def _manifest(store: RunStore, row: Experiment) -> SamplesManifest:
    if row.rev != WORKSPACE:
        return samples_at(store.paths.root, row.rev)
    manifest = store.samples_manifest()
    if manifest is None:
        raise PipelineError("The workspace has no finished pictures. To draw them: dvc repro generate")
    return manifest


show(current_store())
