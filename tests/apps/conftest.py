"""For all tests of pages: one run of each kind, which they never write into, and nothing remembered of another test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st

from tests.run_fixture import RUNS


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """The Experiments page remembers what it listed, over sessions."""
    st.cache_data.clear()
    yield
    st.cache_data.clear()


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    roots = {kind: tmp_path_factory.mktemp(kind) for kind in RUNS}
    for kind, build in RUNS.items():
        build(roots[kind])
    return roots
