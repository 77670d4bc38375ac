"""What `streamlit run dashboard/server.py` starts: the review pages and the picture route, on the loopback address.

It holds no page. $LOUPE_PROJECT names another project folder than the current one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dashboard.views.compare
import dashboard.views.overview  # noqa: F401 - loaded now, so that the first visitor does not wait for Altair
from dashboard.image_route import PICTURE_ROUTES

app = st.App("review.py", routes=PICTURE_ROUTES)
