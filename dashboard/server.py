"""What `streamlit run dashboard/server.py` starts: the review pages and the picture route, behind one gate.

It holds no page. $LOUPE_PROJECT names another project folder than the current one; how a server that others can reach
is guarded: access/settings.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dashboard.components.curves  # noqa: F401 - loads Altair now, so that the first visitor does not wait for it
from dashboard import previews_ahead
from dashboard.access.gate import Gate
from dashboard.access.settings import check_binding, guard_of_this_server, is_open_to_all
from dashboard.image_route import PICTURE_ROUTES
from dashboard.packed_code import PackedCode
from dashboard.page_errors import tell_reviewer
from loupe.errors import exit_on_user_error


def check_access() -> None:
    """Refuse to start when others could look who were not meant to; say what else is unwise."""
    for warning in check_binding():
        print(f"warning: {warning}", file=sys.stderr, flush=True)


exit_on_user_error(check_access)
previews_ahead.start()
app = st.App(
    "review.py",
    routes=PICTURE_ROUTES,
    middleware=[
        Middleware(Gate, guard=guard_of_this_server(), open_to_all=is_open_to_all()),
        Middleware(PackedCode),
    ],
    on_script_error=tell_reviewer,
)
