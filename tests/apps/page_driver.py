"""How the tests of pages open one: the whole review on a project folder, through AppTest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.run_fixture import ROOT

SCRIPT = str(ROOT / "dashboard" / "review.py")


def open_page(monkeypatch: pytest.MonkeyPatch, root: Path, view: str = "", /, **params: str | list[str]) -> AppTest:
    monkeypatch.setenv("LOUPE_PROJECT", str(root))
    app = AppTest.from_file(SCRIPT, default_timeout=120)
    for name, value in params.items():
        app.query_params[name] = value
    app.run()
    if view:
        app.switch_page(f"views/{view}.py").run()
    assert not app.exception
    return app


def html_of(app: AppTest) -> str:
    bodies = [element.proto.body for element in app.get("html")]
    return "\n".join(body for body in bodies if not body.startswith("<style"))


def component_data(app: AppTest) -> dict:
    """What the page gives to its one component in the browser."""
    (component,) = app.get("bidi_component")
    return json.loads(component.proto.json)
