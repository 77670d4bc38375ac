"""What `streamlit run dashboard/server.py` starts: the review pages and the picture route, on the loopback address.

It holds no page. $LOUPE_PROJECT names another project folder than the current one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dashboard.components.curves  # noqa: F401 - loads Altair now, so that the first visitor does not wait for it
from dashboard.image_route import PICTURE_ROUTES
from dashboard.page_errors import tell_reviewer

app = st.App("review.py", routes=PICTURE_ROUTES, on_script_error=tell_reviewer)
