"""The trials on the Experiments page: the form that queues them, and the queue. With DVC: unit/test_trial_queue.py."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from loupe.atomic_io import write_text
from loupe.errors import PipelineError
from loupe.experiments import Experiment
from tests.apps.listed_experiments import listed, with_one_queued
from tests.apps.page_driver import html_of, open_page
from tests.run_fixture import Shape, complete_run, hold_lock


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


def write_worker(root: Path) -> None:
    """One of the queue that is alive, as far as its file tells."""
    worker = root / ".dvc" / "tmp" / "exps" / "celery" / "dvc-exp-worker-1.json"
    write_text(worker, json.dumps({"pid": os.getpid(), "returncode": None}))


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


def test_what_dvc_refuses_is_said_once_where_params_yaml_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The form shows no parameters then, and the queue must not wait for it for ever."""
    root = complete_run(tmp_path, Shape(steps=(75,), seeds=1, size_px=16, captions=0))
    asked_of_dvc(monkeypatch, PipelineError("`dvc queue start` failed: the disk is full"))
    monkeypatch.setattr("loupe.experiments.experiments", with_one_queued)
    app = open_page(monkeypatch, root, "experiments")
    write_text(root / "params.yaml", "<<<<<<< HEAD\n")
    app.button(key="queue-start").click().run()
    assert "the disk is full" in app.error[0].value
    assert not app.run().error


def test_nothing_is_queued_while_a_stage_writes_in_the_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To queue, DVC stashes the project's changes; what a stage writes meanwhile keeps it from taking them back."""
    root = complete_run(tmp_path, Shape(steps=(75,), seeds=1, size_px=16, captions=0))
    commands = asked_of_dvc(monkeypatch)
    app = open_page(monkeypatch, root, "experiments", trial=["train.rank"])
    app.text_input(key="trial-train.rank").set_value("4").run()
    assert not app.button(key="queue-trial").disabled
    hold_lock(root, root / "data" / "checkpoints", pid=os.getpid())
    app.button(key="queue-trial").click().run()
    assert "Stage train is at work here." in app.error[0].value
    assert app.button(key="queue-trial").disabled
    assert "Trials can be queued when it has ended." in html_of(app)
    assert commands == []


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
    write_worker(root)
    commands = asked_of_dvc(monkeypatch)
    app = open_page(monkeypatch, root, "experiments")
    assert "1 running, one after the other" in html_of(app)
    app.button(key="queue-stop").click().run()
    assert commands == [["dvc", "queue", "stop"]]
    app.button(key="queue-kill").click().run()
    assert commands[1:] == [["dvc", "queue", "stop"], ["dvc", "queue", "kill", "c" * 40]]


def test_what_was_listed_stays_while_dvc_sets_a_trial_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """DVC cannot list the experiments in that moment; the page waits for its next look and shows what there was."""
    root = complete_run(tmp_path, Shape(steps=(75, 150), seeds=1, size_px=16, captions=0))
    write_worker(root)
    asked_of_dvc(monkeypatch)
    app = open_page(monkeypatch, root, "experiments")
    looks = []

    def cannot(root: Path, *, max_commits: int) -> tuple[Experiment, ...]:
        looks.append(1)
        raise PipelineError("DVC cannot list the experiments")

    monkeypatch.setattr("loupe.experiments.experiments", cannot)
    write_text(root / "params.yaml", (root / "params.yaml").read_text() + "# changed\n")
    html = html_of(app.run())
    assert "bold-&lt;b&gt;shoe" in html[html.index("lp-experiments") :]
    assert "Two side by side" in html
    assert len(looks) == 1


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
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("loupe.experiments.experiments", with_one_queued)
    app = open_page(monkeypatch, runs["complete"], "experiments")
    assert ("queue-start" in [button.key for button in app.button]) is may
    assert ("Queue a trial" in [expander.label for expander in app.expander]) is may
    assert ("Trials are started by who runs this server" in html_of(app)) is not may
    assert "1 waiting" in html_of(app)
