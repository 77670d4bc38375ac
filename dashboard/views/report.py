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

NOTE = (
    "One HTML file with the scores, the curves, these pictures in their own bytes, the final result, the votes, and "
    "every hash. It opens without a server and without a network. This is what it looks like:"
)
PREVIEW_HEIGHT_PX = 900
MAX_PREVIEW_BYTES = 4_000_000
"""A larger report would make the page slow to come; it is mostly pictures."""


def show(store: RunStore) -> None:
    """Show the page."""
    if banner := state_banner(run_state(store)):
        st.html(banner)
    top, prompts = st.container(), [prompt.prompt_id for prompt in store.prompts()]
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        chosen = st.multiselect(
            "Prompts whose pictures it shows", prompts, key="prompt", bind="query-params",
            placeholder=f"the first {min(MAX_PROMPTS, len(prompts))}",
        )  # fmt: skip
        button = st.container(width="content")
    try:
        text = report_html(store, prompt_ids=chosen)
    except PipelineError as error:
        top.html(headline("Nothing to report yet", escape(str(error))))
        return
    content = text.encode("utf-8")
    title, reason = decision(store)
    top.html(f'<header class="lp-headline"><h1>{escape(title)}</h1>{reasoned(reason)}</header>')
    button.download_button(
        f"Download the report ({len(content) / 1e6:.1f} MB)",
        content,
        file_name="loupe-report.html",
        mime="text/html",
        type="primary",
        on_click="ignore",
    )
    st.html(f'<p class="lp-note">{NOTE}</p>')
    if len(content) <= MAX_PREVIEW_BYTES:
        st.iframe(text, height=PREVIEW_HEIGHT_PX, alt="The report as it will open")
    else:
        st.html('<p class="lp-note">It is too large to be shown here as well; download it to look at it.</p>')


show(current_store())
