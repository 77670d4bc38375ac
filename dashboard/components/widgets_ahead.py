"""Loads the scripts of the widgets of the other pages while the reviewer reads the first one. It shows nothing.

Streamlit loads a widget's script when it first meets the widget, some tenths of a second before the first comparison.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import streamlit as st

_WIDGETS = ("TextInput", "Multiselect", "ButtonGroup", "Slider", "Selectbox", "Pagination")
_QUIET_MS = 800
_SCRIPT = """
export default function ({ data }) {
  const load = async () => {
    for (const name of data.scripts) await import(new URL(`./static/js/${name}`, document.baseURI))
  }
  const waiting = setTimeout(() => load().catch(() => {}), data.quiet_ms)
  return () => clearTimeout(waiting)
}
"""


def load_widgets_ahead() -> None:
    """Mount it at the end of a page, so that it comes after everything that is seen."""
    mount = st.components.v2.component("loupe_widgets_ahead", js=_SCRIPT)
    with st.container(key="lp-ahead"):
        mount(key="widgets-ahead", data={"scripts": widget_scripts(), "quiet_ms": _QUIET_MS})


@cache
def widget_scripts() -> list[str]:
    """Return the names of Streamlit's own script files of the widgets; none of a version that names them otherwise."""
    folder = Path(st.__file__).parent / "static" / "static" / "js"
    return [file.name for widget in _WIDGETS for file in sorted(folder.glob(f"{widget}.*.js"))]
