"""Charts that are drawn once for all visitors, and anew only when what they show has changed. It draws none itself.

Altair checks every part of a chart against its schema, a twentieth of a second each; meanwhile no picture is served.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import altair as alt
import streamlit as st

from loupe.run_store import RunStore

# The page's theme decides on colours and sizes, not Altair's own.
alt.theme.enable("none")


def show_chart(
    store: RunStore, name: str, draw: Callable[..., alt.Chart | alt.LayerChart], *sources: Any, alt_text: str
) -> None:
    """Show draw(*sources); `name` is the chart's own, and it is kept as long as the sources are the same objects."""
    spec = store.files.derived(f"chart {name}", lambda *now: draw(*now).to_dict(), *sources)
    st.vega_lite_chart(deepcopy(spec), width="stretch", alt=alt_text)
