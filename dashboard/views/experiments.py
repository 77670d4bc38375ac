"""The Experiments page: every commit and DVC experiment, the queue of trials, and any two side by side.

Nothing is checked out; running, failed and queued rows show no scores. All it writes is what DVC's own commands do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path

import streamlit as st

from dashboard.access.settings import may_run_trials
from dashboard.components.experiment_comparison import compare_two
from dashboard.components.experiment_table import experiment_table, score_columns
from dashboard.components.markup import headline, state_banner
from dashboard.components.trial_form import FAILED, trial_form
from dashboard.components.trial_panel import trial_panel
from dashboard.current_run import current_store
from loupe.errors import PipelineError
from loupe.experiments import Experiment, experiments, experiments_signature
from loupe.run_state import run_state
from loupe.run_store import RunStore
from loupe.trial_queue import run_dvc, worker_is_alive

COMMITS_AT_ONCE, MOST_OLDER = 20, 50
OLDER = "older"
"""Query parameter: how many times more commits were asked for."""
QUEUE_INTERVAL_S = 2.0
COLUMNS_AT_FIRST = 4
SHOWN, KNOWN, JUST_LISTED = "experiments_shown", "experiments_known", "experiments_just_listed"


@st.cache_data(max_entries=4, show_spinner="Reading the experiments …")
def _listed(root: Path, signature: str, max_commits: int) -> tuple[Experiment, ...]:
    del signature
    return experiments(root, max_commits=max_commits)


def show(store: RunStore) -> None:
    """Show the page."""
    if banner := state_banner(run_state(store)):
        st.html(banner)
    root = store.paths.root
    try:
        rows = _rows(root)
    except PipelineError as error:
        st.html(headline("No experiments here", escape(str(error))))
        return
    n_trials = sum(row.kind == "experiment" for row in rows)
    allowed = may_run_trials()
    hint = "" if n_trials else "Queue one below, or run <code>dvc exp run -S train.learning_rate=3e-4</code>."
    if not allowed:
        hint = "Trials are started by who runs this server; <code>LOUPE_TRIALS=yes</code> lets its visitors, too."
    title = f"{n_trials} experiment{'s' if n_trials != 1 else ''}" if n_trials else "Commits, no experiments yet"
    st.html(headline(title, hint))
    if allowed:
        trial_form(store, partial(run_dvc, root))
    _follow_queue(store, rows)
    _show_table(rows)
    compare_two(store, rows)


def _rows(root: Path) -> tuple[Experiment, ...]:
    """Return what there is to show; while a trial is being set up, which DVC cannot list, what there was before."""
    signature = st.session_state[SHOWN] = experiments_signature(root)
    st.session_state[JUST_LISTED] = True
    try:
        rows = st.session_state[KNOWN] = _listed(root, signature, _max_commits())
    except PipelineError:
        if not worker_is_alive(root):
            raise
        st.session_state[SHOWN] = ""
        rows = st.session_state.get(KNOWN, ())
    return rows


def _times_older() -> int:
    asked = st.query_params.get(OLDER, "")
    return min(int(asked), MOST_OLDER) if re.fullmatch("[0-9]{1,9}", asked) else 0


def _max_commits() -> int:
    return COMMITS_AT_ONCE * (1 + _times_older())


def _ask_for_older() -> None:
    st.query_params[OLDER] = str(_times_older() + 1)


@st.fragment(run_every=QUEUE_INTERVAL_S)
def _follow_queue(store: RunStore, rows: Sequence[Experiment]) -> None:
    """Show the queue, and run the whole page again when an experiment came, went or ended, or a command failed."""
    root = store.paths.root
    # As a part of the page it shows what was found a moment ago: where that failed, the next look is in due time.
    if not st.session_state.pop(JUST_LISTED, False) and (
        experiments_signature(root) != st.session_state.get(SHOWN) or FAILED in st.session_state
    ):
        st.rerun()
    trial_panel(store, rows, partial(run_dvc, root) if may_run_trials() else None)


def _show_table(rows: Sequence[Experiment]) -> None:
    by_name = {column.name: column for column in score_columns(rows)}
    baselines = {row.baseline for row in rows if row.baseline}
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="lp-experiment-filters"):
        chosen = st.multiselect(
            "Scores", list(by_name), key="scores", bind="query-params", default=list(by_name)[:COLUMNS_AT_FIRST],
            placeholder="none",
        )  # fmt: skip
        every = st.toggle("All commits", value=not baselines, key="commits", bind="query-params")
    head = next((row.rev for row in rows if row.kind == "commit"), "")
    listed = [row for row in rows if every or row.kind != "commit" or row.name in baselines or row.rev == head]
    st.html(experiment_table(listed, [by_name[name] for name in chosen]))
    if hidden := len(rows) - len(listed):
        what = "1 commit without experiments is" if hidden == 1 else f"{hidden} commits without experiments are"
        st.html(f'<p class="lp-note">{what} not listed.</p>')
    if sum(row.kind == "commit" for row in rows) >= _max_commits() and _times_older() < MOST_OLDER:
        st.button(f"{COMMITS_AT_ONCE} older commits and their experiments", key="older", on_click=_ask_for_older)


show(current_store())
