"""What Overview and Compare show of a run; every page in every state: test_states.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.components.curves import reference_key
from loupe.metric_specs import METRIC_SPECS, VALIDATION_LOSS
from loupe.run_scores import MetricColumn
from tests.apps.page_driver import html_of, open_page
from tests.run_fixture import NASTY, Shape, complete_run, write_ends, write_selection

SMALL = Shape(steps=(75, 150), seeds=2, size_px=16)


def test_overview_opens_with_the_recommendation_and_its_reason(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    html = html_of(open_page(monkeypatch, runs["complete"]))
    assert "<h1>Ship step 300</h1>" in html
    assert "12.9 against 74.2 of the base model" in html
    assert "★ Recommended" in html


def test_a_recommendation_of_an_earlier_run_is_marked_as_such(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    mark = "from an earlier run</span></h1>"
    assert mark in html_of(open_page(monkeypatch, runs["stale"]))
    assert mark not in html_of(open_page(monkeypatch, runs["complete"]))


def test_overview_says_when_there_is_no_clear_winner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_selection(complete_run(tmp_path, SMALL), SMALL, verdict="no clear winner")
    html = html_of(open_page(monkeypatch, tmp_path))
    assert "<h1>No clear winner</h1>" in html
    assert "Recommended" not in html


@pytest.mark.parametrize(
    ("kind", "sentence"), [("absent", "There is no run here yet"), ("partial", "Not finished: generate")]
)
def test_what_is_missing_comes_with_the_next_command(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path], kind: str, sentence: str
) -> None:
    html = html_of(open_page(monkeypatch, runs[kind]))
    assert sentence in html
    assert "<code>dvc repro</code>" in html


def test_a_chart_promises_bars_only_where_values_have_intervals() -> None:
    """The validation loss has an interval of its difference to base alone."""
    of = {"extractor": None, "null": None, "real": None, "target": None}
    assert reference_key(MetricColumn(METRIC_SPECS["fd_demo"], **of)) == "bars: 95 % interval"
    assert reference_key(MetricColumn(VALIDATION_LOSS, **of)) == ""


def test_the_table_holds_score_interval_difference_null_target_extractor_and_count(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    html = html_of(open_page(monkeypatch, runs["complete"]))
    table = html[html.index('<table class="lp-scores">') : html.index("</table>")]
    for expected in (
        "Fréchet distance (demo)", "↓ lower is better", "demo-classifier", "<b>12.9</b>", "−61.3 to base",
        "26.2 to 28.4", "5.20 to 11.4", "22 against 23 photos", "25.0",
        '10 <small class="of">of 10', '9 <small class="of">of 10',
        "it needs at least 2 images", "gate failed: background_ok 0.49 &lt; 0.90",
    ):  # fmt: skip
        assert expected in table, expected
    assert "They are not FID" in html
    asked = "params.yaml asks for FID below 30, Inception Score above 6; no extractor of this run gives that score."
    assert asked in html


def test_there_is_one_chart_per_metric_and_one_for_the_loss(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    assert len(open_page(monkeypatch, runs["complete"]).get("vega_lite_chart")) == 6
    assert len(open_page(monkeypatch, runs["partial"]).get("vega_lite_chart")) == 1


def test_the_final_result_sets_base_against_the_selected_checkpoint(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    html = html_of(open_page(monkeypatch, runs["complete"]))
    table = html[html.index("Final result on the test split") :]
    for expected in ("<b>75.0</b>", "<b>13.8</b>", "<b>−61.2</b>", "−69.5 to −52.8", "16 test prompts", "5.50 to 11.9"):
        assert expected in table, expected


def test_a_gate_that_is_failed_on_the_test_split_stands_beside_the_recommendation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_ends(complete_run(tmp_path, SMALL), SMALL, gates_failed="centred_ok 0.81, required 0.9")
    headline = html_of(open_page(monkeypatch, tmp_path)).partition("</header>")[0]
    assert "it fails gates that it passed before: centred_ok 0.81, required 0.9." in headline
    write_selection(tmp_path, SMALL, verdict="no clear winner")
    assert "On the test split" not in html_of(open_page(monkeypatch, tmp_path)).partition("</header>")[0]


def test_a_corrupt_file_is_named_and_everything_else_still_shows(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    html = html_of(open_page(monkeypatch, runs["corrupt"]))
    assert "<b>metrics/selection.json</b> cannot be read" in html
    assert "dvc repro --force select" in html
    assert "<b>47.5</b>" in html, "the scores of the other checkpoints stay"
    assert str(runs["corrupt"]) not in html, "no absolute path reaches the page"


def test_compare_shows_base_first_with_scores_under_each_picture(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    html = html_of(open_page(monkeypatch, runs["complete"], "compare"))
    header = html[html.index("lp-head") : html.index("lp-prompt")]
    assert header.index("Base model") < header.index("Step 75") < header.index("Step 300")
    assert header.count("★ Recommended") == 1
    assert html.count('class="lp-img') == 5 * 2 * 5
    assert "clip 27.0" in html
    assert "<i>+9.00</i>" in html
    assert "✓ background" in html
    assert "✗ background" in html


def test_holes_and_invalid_pictures_are_labelled_tiles(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    html = html_of(open_page(monkeypatch, runs["corrupt"], "compare"))
    assert "red_shoes-0/000075.png is not what was generated" in html
    assert "red_shoes-0/000150.png is not there" in html
    assert "Invalid: flat" in html
    waiting = html_of(open_page(monkeypatch, runs["running"], "compare"))
    assert waiting.count('lp-tile waiting"') == 5 * 2 * 3
    assert "20 of 50 pictures" in waiting


def test_a_prompt_shows_literally_whatever_it_holds(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    for page in ("", "compare"):
        html = html_of(open_page(monkeypatch, runs["complete"], page))
        assert "<script" not in html
        assert "onerror=alert(2)&gt;" in html
        assert "a &lt;script&gt;alert(1)&lt;/script&gt; *bold* :red[x]" in html
        assert NASTY not in html


def test_a_link_restores_the_comparison(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    html = html_of(
        open_page(monkeypatch, runs["complete"], "compare", step=["base", "300"], prompt=["red_shoes"], seed=["1"])
    )
    assert html.count('class="lp-img') == 2
    assert "<code>red_shoes</code>" in html
    assert "<code>blue_shoes</code>" not in html


def test_junk_in_a_link_falls_back_to_everything(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    html = html_of(
        open_page(
            monkeypatch, runs["complete"], "compare",
            step=["x"], prompt=["../../etc"], seed=["99"], page="-3", zoom="9×", unknown="1",
        )
    )  # fmt: skip
    assert html.count('class="lp-img') == 50


def test_searching_narrows_by_every_word_and_says_when_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    app = open_page(monkeypatch, runs["complete"], "compare")
    app.text_input(key="q").set_value("RED photo").run()
    assert html_of(app).count("lp-prompt") == 1
    app.text_input(key="q").set_value("<b>zebra").run()
    assert not app.exception
    assert "No prompt holds “&lt;b&gt;zebra”" in html_of(app)


def test_filters_narrow_and_clearing_them_shows_all(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    app = open_page(monkeypatch, runs["complete"], "compare")
    app.multiselect(key="prompt").set_value(["blue_shoes"]).run()
    assert html_of(app).count('class="lp-img') == 10
    app.multiselect(key="prompt").set_value([]).run()
    assert html_of(app).count('class="lp-img') == 50


def test_many_prompts_come_in_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    complete_run(tmp_path, Shape(steps=(75,), seeds=1, size_px=16, captions=7))
    first = html_of(open_page(monkeypatch, tmp_path, "compare"))
    second = html_of(open_page(monkeypatch, tmp_path, "compare", page="2"))
    assert first.count('class="lp-prompt"') == 8
    assert second.count('class="lp-prompt"') == 3


def test_large_pictures_start_small_as_previews_that_link_to_the_original(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    complete_run(tmp_path, Shape(steps=(75,), seeds=1, size_px=512, captions=0))
    html = html_of(open_page(monkeypatch, tmp_path, "compare"))
    assert 'width="256"' in html
    assert 'src="/preview/' in html
    assert 'href="/img/' in html
    whole = html_of(open_page(monkeypatch, tmp_path, "compare", zoom="1×"))
    assert 'width="512"' in whole
    assert "/preview/" not in whole


def test_a_bug_is_told_in_one_sentence_without_traceback_or_message() -> None:
    def page_with_a_bug() -> None:
        from dashboard.page_errors import tell_reviewer

        tell_reviewer(ValueError("a secret path"))

    app = AppTest.from_function(page_with_a_bug, default_timeout=60).run()
    assert "ValueError" in app.error[0].value
    assert "secret" not in app.error[0].value
