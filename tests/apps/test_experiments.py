"""The Experiments page: its table and the comparison of two. What it lists: tests/unit/test_experiments.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from loupe.experiments import Experiment
from loupe.records import SamplesManifest
from loupe.run_store import RunStore
from tests.apps.listed_experiments import listed
from tests.apps.page_driver import component_data, html_of, open_page


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


def test_scores_that_depend_on_the_number_of_pictures_are_not_compared_across_numbers(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    """A Fréchet distance falls with the number of pictures, a mean does not."""

    def of_numbers(root: Path, *, max_commits: int) -> tuple[Experiment, ...]:
        rows = listed(root, max_commits=max_commits)
        return tuple(
            replace(row, scores={**row.scores, "clip_demo_last": 80.0 + i, "n_images": 64 + i, "n_real": 45})
            for i, row in enumerate(rows[:3])
        )

    monkeypatch.setattr("loupe.experiments.experiments", of_numbers)
    app = open_page(monkeypatch, runs["complete"], "experiments")
    html = html_of(app)
    table, compared = html[html.index("lp-experiments") :].split("Two side by side", 1)
    assert "21.5" in table
    assert "21.5<i> ★</i>" not in table
    lines = compared[compared.index("Scores of the last checkpoint") :].split("<tr")
    (frechet,) = [line for line in lines if "Fréchet" in line]
    (clip,) = [line for line in lines if "Text-image score" in line]
    assert "of other numbers of pictures" in frechet
    assert "of other numbers of pictures" not in clip


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


def test_two_experiments_of_one_name_can_both_be_chosen(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    """DVC keeps a name apart for each commit only."""

    def twice(root: Path, *, max_commits: int) -> tuple[Experiment, ...]:
        rows = listed(root, max_commits=max_commits)
        return (*rows, replace(rows[2], rev="d" * 40, scores={"fd_demo_last": 18.5}))

    monkeypatch.setattr("loupe.experiments.experiments", twice)
    app = open_page(monkeypatch, runs["complete"], "experiments")
    both = ["bold-<b>shoe bbbbbbb", "bold-<b>shoe ddddddd"]
    assert app.selectbox(key="one").options == ["workspace", "main aaaaaaa", *both]
    html = html_of(open_page(monkeypatch, runs["complete"], "experiments", one=both[0], other=both[1]))
    assert "<td>21.5</td><td>18.5</td>" in html


def reworded(manifest: SamplesManifest) -> SamplesManifest:
    first, *others = manifest.prompts
    return manifest.model_copy(update={"prompts": (first.model_copy(update={"text": "another one"}), *others)})


def reseeded(manifest: SamplesManifest) -> SamplesManifest:
    samples = tuple(sample.model_copy(update={"seed": sample.seed + 1}) for sample in manifest.samples)
    return manifest.model_copy(update={"samples": samples})


@pytest.mark.parametrize(
    ("change", "said", "n_missing"),
    [
        (lambda manifest: manifest, "Same prompt, same seed.", 0),
        (reworded, "Same prompt, same seed.", 1),
        (reseeded, "Same prompt, but other initial noise", 0),
    ],
    ids=["nothing", "a prompt's text", "the seed"],
)
def test_pictures_stand_side_by_side_of_one_prompt_only(
    monkeypatch: pytest.MonkeyPatch,
    runs: dict[str, Path],
    change: Callable[[SamplesManifest], SamplesManifest],
    said: str,
    n_missing: int,
) -> None:
    """One prompt id may name another text in another commit, and a trial may change the seed."""
    manifest = RunStore(runs["complete"]).samples_manifest()
    monkeypatch.setattr("loupe.experiments.experiments", listed)
    monkeypatch.setattr("dashboard.components.experiment_comparison.samples_at", lambda *_: change(manifest))
    monkeypatch.setattr("dashboard.components.experiment_comparison.show_pictures_at", lambda *_: set())
    app = open_page(monkeypatch, runs["complete"], "experiments", one="workspace", other="main aaaaaaa")
    after = html_of(app).split("Two side by side")[1]
    assert said in after
    assert after.count('class="lp-two"') == len(manifest.prompts) - n_missing
    assert {row["seed"] for row in component_data(app)["rows"]} == {None if change is reseeded else "1000000"}


def test_the_scores_that_are_shown_can_be_chosen(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    monkeypatch.setattr("loupe.experiments.experiments", listed)
    app = open_page(monkeypatch, runs["complete"], "experiments")
    assert app.multiselect(key="scores").value == ["Fréchet distance (demo), last checkpoint"]
    app.multiselect(key="scores").set_value([]).run()
    assert "29.0" not in html_of(app).split("Two side by side")[0]


def test_older_commits_and_their_experiments_come_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    def history(root: Path, *, max_commits: int) -> tuple[Experiment, ...]:
        workspace, commit, trial, _ = listed(root, max_commits=max_commits)
        commits = [replace(commit, rev=f"{n:040}", name=f"main {n:07}") for n in range(33)][:max_commits]
        old = [replace(trial, name="old-shoe", baseline="main 0000030")] if max_commits > 30 else []
        return (workspace, *commits, *old)

    monkeypatch.setattr("loupe.experiments.experiments", history)
    for junk in ("9" * 5000, "-1", "junk"):
        app = open_page(monkeypatch, runs["complete"], "experiments", older=junk)
        assert "old-shoe" not in html_of(app)
    app.button(key="older").click().run()
    assert "old-shoe" in html_of(app)
    assert app.query_params["older"] == "1"
    assert "older" not in [button.key for button in app.button], "there are no more"
