"""What a reviewer sees when a page has a bug: one sentence. The traceback goes to the server's log alone."""

from __future__ import annotations

import traceback

import streamlit as st


def tell_reviewer(error: Exception) -> bool:
    """Say that the page stopped; True keeps Streamlit from showing more."""
    traceback.print_exception(error)
    st.error(f"This page stopped at a mistake in Loupe itself ({type(error).__name__}). The server's log says where.")
    return True
