"""The Training page on runs with more and with less to show."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dashboard.current_run import store_of
from loupe.run_scores import Score
from loupe.run_training import overfitting_signs
from tests.apps.page_driver import html_of, open_page
from tests.run_fixture import Shape, complete_run, hold_lock, write_previews, write_telemetry

SHAPE = Shape(steps=(75, 150), seeds=1, size_px=16, captions=0)


def test_everything_that_training_leaves_has_its_chart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    complete_run(tmp_path, SHAPE)
    write_previews(tmp_path, SHAPE, steps=(0, 75))
    write_telemetry(tmp_path, SHAPE)
    app = open_page(monkeypatch, tmp_path, "training")
    html = html_of(app)
    assert "<h1>Trained for 150 steps</h1>" in html
    titles = [
        "Training loss", "Learning rate", "Gradient norm", "Validation loss", "Difference to the base model",
        "Validation loss by timestep", "Previews", "Images per second", "Peak memory",
    ]  # fmt: skip
    assert [title for title in titles if f">{title}<" not in html] == []
    assert len(app.get("vega_lite_chart")) == 8
    assert html.count('class="lp-img') == 4 * 2
    assert "Lowest validation loss" in html


def test_the_signs_of_overfitting_come_from_their_table_with_the_null(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    complete_run(tmp_path, SHAPE)
    names = ["step", "val_loss", *(f"diversity_ratio_demo{end}" for end in ("", "_lo", "_hi")), "memor_share_demo"]
    rows = [[0, 0.2, 1.2, 0.9, 1.5, ""], [75, 0.1, 1.0, 0.8, 1.2, 0.04], [150, 0.11, 0.6, 0.4, 0.8, 0.5]]
    lines = [names, *rows]
    table = tmp_path / "metrics" / "overfitting.csv"
    table.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    scores = tmp_path / "metrics" / "checkpoints.csv"
    header, *old = scores.read_text().splitlines()
    extra = [f"{line},1.0,0.01" for line in old]
    scores.write_text("\n".join([f"{header},diversity_ratio_demo,memor_share_demo", *extra]) + "\n")
    app = open_page(monkeypatch, tmp_path, "training")
    html = html_of(app)
    signs = html[html.index("Signs of overfitting") :]
    assert signs.index(">Diversity (demo)<") < signs.index(">Memorised (demo)<")
    last = overfitting_signs(store_of(tmp_path))[-1].scores
    assert last["diversity_ratio_demo"] == Score(0.6, 0.4, 0.8, None, None, None), "of overfitting.csv, with interval"
    assert len(app.get("vega_lite_chart")) == 8 + 2
    without = complete_run(tmp_path / "without", SHAPE)
    assert "Signs of overfitting" not in html_of(open_page(monkeypatch, without, "training"))


def test_an_older_run_shows_what_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    complete_run(tmp_path, SHAPE)
    for name in ("validation.csv", "validation_timesteps.csv"):
        (tmp_path / "metrics" / name).unlink(missing_ok=True)
    shutil.rmtree(tmp_path / ".work", ignore_errors=True)
    app = open_page(monkeypatch, tmp_path, "training")
    assert len(app.get("vega_lite_chart")) == 3
    assert "Validation loss" not in html_of(app)
    assert "Peak memory" not in html_of(app)


def test_a_running_training_says_how_far_it_is_and_what_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    complete_run(tmp_path, SHAPE)
    curve = tmp_path / "metrics" / "train.csv"
    curve.write_text("".join(curve.read_text().splitlines(keepends=True)[:61]))
    (tmp_path / "data" / "checkpoints" / "manifest.json").unlink()
    write_telemetry(tmp_path, SHAPE, until=60)
    hold_lock(tmp_path, tmp_path / "data" / "checkpoints", pid=1)
    html = html_of(open_page(monkeypatch, tmp_path, "training"))
    assert "<h1>Training, step 60 of 150</h1>" in html
    assert "60 of 150 steps" in html


def test_before_any_training_the_next_command_is_named(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    html = html_of(open_page(monkeypatch, runs["absent"], "training"))
    assert "Nothing has been trained yet" in html
    assert "<code>dvc repro train</code>" in html
