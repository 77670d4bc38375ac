"""The frame of the review: page settings, navigation, and the watch that reloads a page when a result changes.

The pages themselves are in views/.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.access.gate import Gate
from dashboard.access.settings import guard_of_this_server
from dashboard.access.sign_in_page import SIGN_OUT
from dashboard.components.widgets_ahead import load_widgets_ahead
from dashboard.current_run import current_store
from dashboard.pictures import LAST_REQUEST
from loupe.run_store import RunStore

STYLE = Path(__file__).with_name("style.css")
WATCH_INTERVAL_S = 1.5


@st.fragment(run_every=WATCH_INTERVAL_S)
def follow_changes(store: RunStore) -> None:
    """Run the whole page again when a file that it shows has changed, and only then."""
    now = store.fingerprint()
    if st.session_state.setdefault("shown_fingerprint", now) != now:
        st.session_state["shown_fingerprint"] = now
        st.rerun()


def main() -> None:
    """Show the page that the address names."""
    LAST_REQUEST.note()
    st.set_page_config(page_title="Loupe", page_icon="🔍", layout="wide")
    st.html(STYLE)
    if guard_of_this_server() is not None:
        if not Gate.is_up:
            st.error("This review asks to sign in, so it is served by dashboard/server.py alone.")
            st.stop()
        st.html(f'<a class="lp-sign-out" href="{SIGN_OUT}">Sign out</a>')
    follow_changes(current_store())
    pages = [
        st.Page("views/overview.py", title="Overview", default=True),
        st.Page("views/compare.py", title="Compare"),
        st.Page("views/vote.py", title="Vote"),
        st.Page("views/training.py", title="Training"),
        st.Page("views/data.py", title="Data"),
        st.Page("views/experiments.py", title="Experiments"),
        st.Page("views/report.py", title="Report"),
    ]
    page = st.navigation(pages, position="top")
    page.run()
    if page == pages[0]:
        load_widgets_ahead()


main()
