"""The form that queues a trial: choose parameters, type values, see the command, run it. It decides no value."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from html import escape

import streamlit as st

from loupe.errors import PipelineError
from loupe.params import Params
from loupe.run_state import run_state
from loupe.run_store import RunStore
from loupe.trial_params import Knob, TrialPlan, knobs, plan_trials, queue_command

FIELDS_PER_LINE = 3
SAID = "trial_said"
FAILED = "trial_failed"
Run = Callable[[list[str]], str]


def trial_form(store: RunStore, run: Run) -> None:
    """Show the form; `run` takes a command as a list of arguments and raises PipelineError where it fails."""
    with st.expander("Queue a trial", expanded=bool(st.query_params.get("trial")), icon=":material/add:"):
        _show_form(store, run)
    if said := st.session_state.pop(SAID, None):
        st.success(said)
    if failed := st.session_state.pop(FAILED, None):
        st.error(failed)


def _show_form(store: RunStore, run: Run) -> None:
    params = store.params()
    if params is None:
        st.html('<p class="lp-note">params.yaml cannot be read, so there is nothing to start a trial from.</p>')
        return
    by_name = {knob.name: knob for knob in knobs(params)}
    chosen = st.multiselect(
        "Parameters that it changes", list(by_name), key="trial", bind="query-params",
        placeholder="train.learning_rate, train.rank …",
    )  # fmt: skip
    asked = _fields([by_name[name] for name in chosen])
    _show_plan(store, params, asked, run)


def _fields(chosen: list[Knob]) -> dict[str, str]:
    asked = {}
    for start in range(0, len(chosen), FIELDS_PER_LINE):
        line = chosen[start : start + FIELDS_PER_LINE]
        for place, knob in zip(st.columns(FIELDS_PER_LINE), line, strict=False):
            with place:
                asked[knob.name] = _field(knob)
    return asked


def _field(knob: Knob) -> str:
    key, label = f"trial-{knob.name}", f"{knob.name} (now {knob.now})"
    if knob.kind == "choice":
        picked = st.pills(label, knob.choices, key=key, selection_mode="multi", help=knob.meaning)
        return ", ".join(picked)
    hint = f"a {knob.kind}{' or null' if knob.takes_null else ''}; several: 1, 2, 3"
    return st.text_input(label, key=key, placeholder=hint, help=knob.meaning, max_chars=200)


def _show_plan(store: RunStore, params: Params, asked: Mapping[str, str], run: Run) -> None:
    typed = {name: text for name, text in asked.items() if text.strip()}
    plan, problem = None, ""
    if typed and len(typed) == len(asked):
        try:
            plan = plan_trials(params, typed)
        except PipelineError as error:
            problem = str(error)
    if plan is None:
        waiting = "Choose what to change." if not asked else "Each chosen parameter needs a value."
        lines = "<br>".join(escape(line) for line in problem.splitlines()) or (
            f"{waiting} Several values, separated by commas, make a grid: one trial for each combination."
        )
        st.html(f'<p class="{"lp-problem" if problem else "lp-note"}">{lines}</p>')
        return
    st.code(shlex.join(queue_command(plan)), language="bash", wrap_lines=True)
    _show_button(store, plan, run)


def _show_button(store: RunStore, plan: TrialPlan, run: Run) -> None:
    def queue() -> None:
        try:
            if wait := _why_not_now(store):
                raise PipelineError(wait)
            run(queue_command(plan))
        except PipelineError as error:
            st.session_state[FAILED] = str(error)
            return
        st.session_state[SAID] = (
            f"Queued {_trials(plan.count)}. Start the queue below when nothing else needs the machine."
        )
        st.session_state["trial"] = []

    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        wait = _why_not_now(store)
        label = f"Queue {_trials(plan.count)}"
        st.button(label, key="queue-trial", type="primary", on_click=queue, disabled=bool(wait))
        note = wait or (
            "This is the command that runs. A trial starts from the files as they are now, runs in a copy of its own, "
            "and redoes only what its parameters change."
        )
        st.html(f'<p class="lp-note">{escape(note)}</p>')


def _why_not_now(store: RunStore) -> str:
    """Return why no trial can be queued while the project's own run is at work; '' when it is not.

    `dvc exp run --queue` stashes the changes of the project in git and takes them back. What a stage writes meanwhile
    makes that a conflict, and a changed params.yaml stays in the stash.
    """
    stage = next((stage.name for stage in run_state(store).stages if stage.status == "running"), "")
    return f"Stage {stage} is at work here. Trials can be queued when it has ended." if stage else ""


def _trials(count: int) -> str:
    return f"{count} trial{'s' if count != 1 else ''}"
