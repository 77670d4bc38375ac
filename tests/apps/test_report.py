"""The Report page: the decision, and the file to take away."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.apps.page_driver import html_of, open_page


def test_it_shows_the_decision_and_offers_the_file(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    app = open_page(monkeypatch, runs["complete"], "report", prompt=["red_shoes", "junk"])
    assert "<h1>Ship step 300</h1>" in html_of(app)
    (button,) = app.get("download_button")
    assert button.proto.label.startswith("Download the report (")
    (preview,) = app.get("iframe")
    assert "Content-Security-Policy" in preview.proto.srcdoc, "no script runs in it, whatever a prompt holds"
    assert "Ship step 300" in preview.proto.srcdoc


def test_before_there_is_a_decision_the_next_command_is_named(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    app = open_page(monkeypatch, runs["absent"], "report")
    assert "Nothing to report yet" in html_of(app)
    assert "dvc repro select" in html_of(app)
    assert not app.get("download_button")
