"""A chart is drawn once, again when what it shows has changed, and looks as Streamlit would draw it from Altair."""

from __future__ import annotations

import json
from pathlib import Path

import altair as alt
import pytest

from loupe.atomic_io import write_bytes
from tests.apps.page_driver import open_page
from tests.run_fixture import Shape, complete_run


def specs(app: object) -> list[dict]:
    return [json.loads(element.proto.spec) for element in app.get("vega_lite_chart")]


def test_charts_are_drawn_once_and_again_when_a_score_has_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = complete_run(tmp_path, Shape(seeds=1, size_px=16))
    drawn: list[int] = []
    to_dict = alt.LayerChart.to_dict

    def counted(chart: alt.LayerChart, *args: object, **options: object) -> dict:
        drawn.append(1)
        return to_dict(chart, *args, **options)

    monkeypatch.setattr(alt.LayerChart, "to_dict", counted)
    app = open_page(monkeypatch, root)
    first, count = specs(app), len(drawn)
    assert count >= 6
    app.run()
    assert specs(app) == first
    assert len(drawn) == count, "nothing has changed"

    scores = root / "metrics" / "checkpoints.csv"
    write_bytes(scores, scores.read_bytes().replace(b"74.2,", b"71.5,"))
    app.run()
    assert len(drawn) > count
    assert "71.5" in json.dumps(specs(app)) and "71.5" not in json.dumps(first)


def test_a_kept_chart_leaves_size_and_colours_to_the_page(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    charts = specs(open_page(monkeypatch, runs["complete"]))
    assert charts
    for spec in charts:
        assert "config" not in spec or "view" not in spec["config"]
