"""The Experiments page where there is nothing to list; with commits: tests/unit/test_experiments.py and below."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st

from loupe.experiments import Experiment
from tests.apps.page_driver import html_of, open_page


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """The page remembers what it listed for some seconds, over sessions."""
    st.cache_data.clear()
    yield
    st.cache_data.clear()


def listed(root: Path, *, max_commits: int) -> tuple[Experiment, ...]:
    del root, max_commits
    scores, params = {"fd_demo_last": 29.0}, {"train.rank": 8, "train.learning_rate": 1e-3}
    trial = {**params, "train.rank": 16}
    changed = {"train.rank": (8, 16)}
    return (
        Experiment("workspace", "workspace", "workspace", "", "", "", params, {}, scores),
        Experiment("a" * 40, "main aaaaaaa", "commit", "", "2026-01-01", "", params, {}, scores),
        Experiment(
            "b" * 40, "bold-<b>shoe", "experiment", "main aaaaaaa", "", "", trial, changed, {"fd_demo_last": 21.5}
        ),
        Experiment("c" * 40, "slow-shoe", "experiment", "main aaaaaaa", "", "Running", trial, changed, {}),
    )


def test_outside_a_repository_it_says_what_experiments_need(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    html = html_of(open_page(monkeypatch, runs["complete"], "experiments"))
    assert "No experiments here" in html
    assert "git repository with at least one commit" in html


def test_rows_show_their_own_changes_and_scores(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    monkeypatch.setattr("loupe.experiments.experiments", listed)
    html = html_of(open_page(monkeypatch, runs["complete"], "experiments"))
    assert "<h1>2 experiments</h1>" in html
    assert "bold-&lt;b&gt;shoe" in html
    assert "train.rank: 8 → <b>16</b>" in html
    running = html[html.index("slow-shoe") : html.index("Two side by side")]
    assert "Running" in running
    assert "29.0" not in running


def test_two_are_compared_by_parameters_and_scores_and_missing_pictures_are_said(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    monkeypatch.setattr("loupe.experiments.experiments", listed)
    html = html_of(open_page(monkeypatch, runs["complete"], "experiments", a="main aaaaaaa", b="bold-<b>shoe"))
    after = html[html.index("Two side by side") :]
    assert '<th scope="row">train.rank</th><td>8</td><td>16</td>' in after
    assert "train.learning_rate" not in after
    assert "<td>29.0</td><td>21.5</td>" in after
    assert "The pictures of aaaaaaa are not here" in after
    same = html_of(open_page(monkeypatch, runs["complete"], "experiments", a="workspace", b="workspace"))
    assert "Choose two different ones" in same
