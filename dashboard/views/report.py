"""The Report page: choose the prompts to show, look at what the file will say, take it away. It writes no file."""

from __future__ import annotations

from html import escape

import streamlit as st

from dashboard.components.markup import headline, reasoned, state_banner
from dashboard.current_run import current_store
from loupe.errors import PipelineError
from loupe.report_page import MAX_PROMPTS, decision, report_html
from loupe.run_state import run_state
from loupe.run_store import RunStore


def show(store: RunStore) -> None:
    """Show the page."""
    if banner := state_banner(run_state(store)):
        st.html(banner)
    prompts = [prompt.prompt_id for prompt in store.prompts()]
    chosen = st.multiselect(
        "Prompts whose pictures it shows",
        prompts,
        key="prompt",
        bind="query-params",
        placeholder=f"the first {min(MAX_PROMPTS, len(prompts))}",
    )
    try:
        content = report_html(store, prompt_ids=chosen).encode("utf-8")
    except PipelineError as error:
        st.html(headline("Nothing to report yet", escape(str(error))))
        return
    title, reason = decision(store)
    st.html(f'<header class="lp-headline"><h1>{escape(title)}</h1>{reasoned(reason)}</header>')
    st.download_button(
        f"Download the report ({len(content) / 1e6:.1f} MB)",
        content,
        file_name="loupe-report.html",
        mime="text/html",
        type="primary",
        on_click="ignore",
    )
    st.html(
        '<p class="lp-note">One HTML file with the scores, the curves, these pictures in their own bytes, the final '
        "result, the votes, and every hash. It opens without a server and without a network.</p>"
    )


show(current_store())
