"""The queue: which trials wait, run or failed, how far each is, and its start and stop. It lists nothing itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

import streamlit as st

from dashboard.components.experiment_table import changes_html, state_chip
from dashboard.components.markup import progress_bar
from dashboard.components.trial_form import FAILED, Run
from loupe.errors import PipelineError
from loupe.experiments import Experiment
from loupe.run_store import RunStore
from loupe.trial_queue import INTERRUPT, START, STOP, TrialView, trial_view, worker_is_alive

LINES_WHILE_RUNNING = 3


def trial_panel(store: RunStore, rows: Sequence[Experiment], run: Run | None) -> None:
    """Show the unfinished trials, those that run first; nothing when there is none. With `run`, the queue's buttons."""
    order = {"Running": 0, "Queued": 1, "Failed": 2}
    unfinished = sorted((row for row in rows if row.state), key=lambda row: order[row.state])
    alive = worker_is_alive(store.paths.root)
    if not unfinished and not alive:
        return
    counts = Counter(row.state for row in unfinished)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="lp-queue-head"):
        st.html(f"<h2>Queue</h2><small>{_summary(counts, alive=alive)}</small>")
        running = [row.rev for row in unfinished if row.state == "Running"]
        if run is not None:
            _buttons(run, alive=alive, n_queued=counts["Queued"], running=running)
    cards = "".join(_card(store, row, alive=alive) for row in unfinished)
    st.html(f'<div class="lp-trials">{cards}</div>' if cards else "<i></i>")


def _summary(counts: Counter[str], *, alive: bool) -> str:
    words = {"Running": "running", "Queued": "waiting", "Failed": "failed"}
    said = [f"{counts[state]} {word}" for state, word in words.items() if counts[state]]
    return ", ".join([*said, "one after the other" if alive else "not started"])


def _buttons(run: Run, *, alive: bool, n_queued: int, running: Sequence[str]) -> None:
    def ask(*commands: Sequence[str]) -> None:
        try:
            for command in commands:
                run(list(command))
        except PipelineError as error:
            st.session_state[FAILED] = str(error)

    if alive:
        now = (STOP, (*INTERRUPT, *running)) if running else (STOP,)
        st.button("Stop after this trial", key="queue-stop", on_click=ask, args=(STOP,), help=" ".join(STOP))
        st.button("Stop now", key="queue-kill", on_click=ask, args=now, help=" ".join(INTERRUPT))
    elif n_queued:
        label, command = "Start the queue", " ".join(START)
        st.button(label, key="queue-start", type="primary", on_click=ask, args=(START,), help=command)


def _card(store: RunStore, row: Experiment, *, alive: bool) -> str:
    view = trial_view(store.paths.root, row.rev, running=row.state == "Running")
    return (
        f'<article class="lp-trial {row.state.lower()}"><h3>{escape(row.name)}{state_chip(row.state)}</h3>'
        f'<div class="changes">{changes_html(row.changed)}</div>{_doing(row, view, alive=alive)}</article>'
    )


def _doing(row: Experiment, view: TrialView, *, alive: bool) -> str:
    if row.state == "Queued":
        return f"<p>{'Waits for its turn.' if alive else 'Waits until the queue is started.'}</p>"
    name = escape(row.name)
    if row.state == "Failed":
        last = (
            f"Its last lines:</p>{_log(view.log)}<p>" if view.log else f"Its log: <code>dvc queue logs {name}</code>. "
        )
        return f"<p>It did not finish. {last}To clear it away: <code>dvc queue remove {name}</code></p>"
    if not alive:
        return f"<p>Its worker is gone. To clear it away: <code>dvc queue kill {name}</code></p>{_log(view.log)}"
    stage = f"Stage {view.stage}" if view.stage else "Starting, or between two stages"
    bar = progress_bar(view.progress) if view.progress else ""
    return f"<p>{stage}</p>{bar}{_log(view.log[-LINES_WHILE_RUNNING:])}"


def _log(lines: Sequence[str]) -> str:
    return f"<pre>{escape(chr(10).join(lines))}</pre>" if lines else ""
