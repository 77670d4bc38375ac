"""The Experiments page: its table, the queue, the comparison. What it lists: tests/unit/test_experiments.py."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import streamlit as st

from loupe.atomic_io import write_text
from loupe.errors import PipelineError
from loupe.experiments import Experiment
from tests.apps.page_driver import html_of, open_page
from tests.run_fixture import Shape, complete_run


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
    assert "git init &amp;&amp; dvc init" in html
    assert str(runs["complete"]) not in html


def test_rows_show_their_own_changes_and_scores(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    monkeypatch.setattr("loupe.experiments.experiments", listed)
    html = html_of(open_page(monkeypatch, runs["complete"], "experiments"))
    assert "<h1>2 experiments</h1>" in html
    assert "bold-&lt;b&gt;shoe" in html
    assert "train.rank: 8 → <b>16</b>" in html
    table = html[html.index("lp-experiments") : html.index("Two side by side")]
    running = table[table.index("slow-shoe") :]
    assert "Running" in running
    assert "29.0" not in running
    assert "21.5<i> ★</i>" in table, "the best of those listed is marked"


def test_two_are_compared_by_parameters_and_scores_and_missing_pictures_are_said(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    monkeypatch.setattr("loupe.experiments.experiments", listed)
    html = html_of(open_page(monkeypatch, runs["complete"], "experiments", one="main aaaaaaa", other="bold-<b>shoe"))
    after = html[html.index("Two side by side") :]
    assert '<th scope="row">train.rank</th><td>8</td><td>16</td>' in after
    assert "train.learning_rate" not in after
    assert "<td>29.0</td><td>21.5</td><td>−7.50</td>" in after
    assert "The pictures of aaaaaaa are not here" in after
    same = html_of(open_page(monkeypatch, runs["complete"], "experiments", one="workspace", other="workspace"))
    assert "Choose two different ones" in same


def test_an_experiment_is_first_compared_with_the_commit_it_came_from(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    monkeypatch.setattr("loupe.experiments.experiments", listed)
    app = open_page(monkeypatch, runs["complete"], "experiments")
    assert (app.selectbox(key="one").value, app.selectbox(key="other").value) == ("main aaaaaaa", "bold-<b>shoe")


def test_the_scores_that_are_shown_can_be_chosen(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    monkeypatch.setattr("loupe.experiments.experiments", listed)
    app = open_page(monkeypatch, runs["complete"], "experiments")
    assert app.multiselect(key="scores").value == ["Fréchet distance (demo), last checkpoint"]
    app.multiselect(key="scores").set_value([]).run()
    assert "29.0" not in html_of(app).split("Two side by side")[0]


def asked_of_dvc(monkeypatch: pytest.MonkeyPatch, answer: Exception | None = None) -> list[list[str]]:
    """Record what would be run."""
    commands: list[list[str]] = []

    def run(root: Path, command: Sequence[str]) -> str:
        del root
        commands.append(list(command))
        if answer:
            raise answer
        return ""

    monkeypatch.setattr("loupe.trial_queue.run_dvc", run)
    monkeypatch.setattr("loupe.experiments.experiments", listed)
    return commands


def test_a_trial_is_shown_as_its_command_before_it_is_queued(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    commands = asked_of_dvc(monkeypatch)
    app = open_page(monkeypatch, runs["complete"], "experiments")
    app.multiselect(key="trial").set_value(["train.rank", "train.learning_rate"]).run()
    assert "Each chosen parameter needs a value" in html_of(app)
    app.text_input(key="trial-train.rank").set_value("4, 16").run()
    app.text_input(key="trial-train.learning_rate").set_value("1e-5").run()
    command = "dvc exp run --queue -S train.rank=4,16 -S train.learning_rate=1e-05"
    assert app.code[0].value == command
    assert commands == [], "showing it runs nothing"
    app.button(key="queue-trial").click().run()
    assert commands == [command.split()]
    assert "Queued 2 trials" in app.success[0].value


@pytest.mark.parametrize("value", ["-1", "8; touch x", "$(id)", "nan", "--force"])
def test_an_invalid_value_is_named_and_cannot_be_queued(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path], value: str
) -> None:
    commands = asked_of_dvc(monkeypatch)
    app = open_page(monkeypatch, runs["complete"], "experiments", trial=["train.rank"])
    app.text_input(key="trial-train.rank").set_value(value).run()
    assert "train.rank: must be" in html_of(app)
    assert not app.code
    assert "queue-trial" not in [button.key for button in app.button]
    assert commands == []


def test_junk_in_the_link_of_a_trial_changes_nothing(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    asked_of_dvc(monkeypatch)
    app = open_page(monkeypatch, runs["complete"], "experiments", trial=["train.rnk", "; rm -rf ."])
    assert app.multiselect(key="trial").value == []


def test_what_dvc_refuses_is_said(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    asked_of_dvc(monkeypatch, PipelineError("`dvc exp run` failed: the disk is full"))
    app = open_page(monkeypatch, runs["complete"], "experiments", trial=["train.rank"])
    app.text_input(key="trial-train.rank").set_value("4").run()
    app.button(key="queue-trial").click().run()
    assert "the disk is full" in app.error[0].value


def test_the_queue_says_what_each_unfinished_trial_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def with_states(root: Path, *, max_commits: int) -> tuple[Experiment, ...]:
        rows = listed(root, max_commits=max_commits)
        states = {"d" * 40: ("wait-shoe", "Queued"), "e" * 40: ("bad-<i>shoe", "Failed")}
        more = (replace(rows[3], rev=rev, name=name, state=state) for rev, (name, state) in states.items())
        return (*rows, *more)

    root = complete_run(tmp_path, Shape(steps=(75, 150), seeds=1, size_px=16, captions=0))
    folder = root / ".dvc" / "tmp" / "exps" / "run" / ("e" * 40)
    write_text(folder / f"{'e' * 40}.out", "Running stage 'train'\nerror: <b>no</b> GPU\n")
    commands = asked_of_dvc(monkeypatch)
    monkeypatch.setattr("loupe.experiments.experiments", with_states)
    app = open_page(monkeypatch, root, "experiments")
    html = html_of(app)
    assert "1 running, 1 waiting, 1 failed, not started" in html
    assert "Its worker is gone" in html
    assert "Waits until the queue is started" in html
    assert "error: &lt;b&gt;no&lt;/b&gt; GPU" in html
    app.button(key="queue-start").click().run()
    assert commands == [["dvc", "queue", "start", "-j", "1"]]


def test_stopping_now_interrupts_what_runs_and_leaves_the_rest_queued(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`dvc queue stop --kill` would leave the stage itself running on its own."""
    root = complete_run(tmp_path, Shape(steps=(75, 150), seeds=1, size_px=16, captions=0))
    worker = root / ".dvc" / "tmp" / "exps" / "celery" / "dvc-exp-worker-1.json"
    write_text(worker, json.dumps({"pid": os.getpid(), "returncode": None}))
    commands = asked_of_dvc(monkeypatch)
    app = open_page(monkeypatch, root, "experiments")
    assert "1 running, one after the other" in html_of(app)
    app.button(key="queue-stop").click().run()
    assert commands == [["dvc", "queue", "stop"]]
    app.button(key="queue-kill").click().run()
    assert commands[1:] == [["dvc", "queue", "stop"], ["dvc", "queue", "kill", "c" * 40]]


@pytest.mark.parametrize(
    ("environment", "may"),
    [
        ({}, True),
        ({"LOUPE_OPEN": "yes"}, False),
        ({"LOUPE_OPEN": "yes", "LOUPE_TRIALS": "yes"}, True),
        ({"LOUPE_TRIALS": "no"}, False),
    ],
    ids=str,
)
def test_visitors_of_a_shared_review_run_trials_only_when_its_owner_says_so(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path], environment: dict[str, str], may: bool
) -> None:
    def waiting(root: Path, *, max_commits: int) -> tuple[Experiment, ...]:
        *rows, running = listed(root, max_commits=max_commits)
        return (*rows, replace(running, state="Queued"))

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("loupe.experiments.experiments", waiting)
    app = open_page(monkeypatch, runs["complete"], "experiments")
    assert ("queue-start" in [button.key for button in app.button]) is may
    assert ("Queue a trial" in [expander.label for expander in app.expander]) is may
    assert ("Trials are started by who runs this server" in html_of(app)) is not may
    assert "1 waiting" in html_of(app)


def test_older_commits_and_their_experiments_come_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    def history(root: Path, *, max_commits: int) -> tuple[Experiment, ...]:
        workspace, commit, trial, _ = listed(root, max_commits=max_commits)
        commits = [replace(commit, rev=f"{n:040}", name=f"main {n:07}") for n in range(33)][:max_commits]
        old = [replace(trial, name="old-shoe", baseline="main 0000030")] if max_commits > 30 else []
        return (workspace, *commits, *old)

    monkeypatch.setattr("loupe.experiments.experiments", history)
    app = open_page(monkeypatch, runs["complete"], "experiments", older="junk")
    assert "old-shoe" not in html_of(app)
    app.button(key="older").click().run()
    assert "old-shoe" in html_of(app)
    assert app.query_params["older"] == "1"
    assert "older" not in [button.key for button in app.button], "there are no more"
