"""The first page loads the widgets of the others ahead, by names that Streamlit's folder really has."""

from __future__ import annotations

from pathlib import Path

import pytest
import streamlit as st

from dashboard.components.widgets_ahead import widget_scripts
from tests.apps.page_driver import component_data, open_page


def test_the_first_page_names_one_script_for_each_widget(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    scripts = component_data(open_page(monkeypatch, runs["partial"]))["scripts"]
    assert scripts == widget_scripts()
    assert [name.split(".")[0] for name in scripts] == [
        "TextInput", "Multiselect", "ButtonGroup", "Slider", "Selectbox", "Pagination",
    ]  # fmt: skip
    folder = Path(st.__file__).parent / "static" / "static" / "js"
    assert all((folder / name).is_file() for name in scripts)


def test_the_other_pages_do_not(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    assert not open_page(monkeypatch, runs["partial"], "training").get("bidi_component")
