"""The small curves of the report: where points, bars and the null stand, and which values the axis names."""

from __future__ import annotations

import re

import pytest

from loupe.evaluation_records import Null
from loupe.metric_specs import METRIC_SPECS
from loupe.report_svg import _round_values, score_svg
from loupe.run_scores import MetricColumn, Score, StepScores


def column(key: str, null: Null | None = None) -> MetricColumn:
    return MetricColumn(METRIC_SPECS[key], extractor=None, null=null, real=None, target=None)


def row(step: int, key: str, value: float, lo: float | None = None, hi: float | None = None) -> StepScores:
    score = Score(value, lo, hi, None, None, None)
    return StepScores(step, n_images=4, n_used=4, n_real=4, invalid_count=0, scores={key: score})


def test_a_higher_score_stands_higher_and_the_recommended_one_is_a_diamond() -> None:
    drawn = score_svg(column("clip_demo"), [row(0, "clip_demo", 10), row(75, "clip_demo", 20)], chosen=75)
    (low,) = re.findall(r'<circle[^>]*cy="([\d.]+)"', drawn)
    (high,) = re.findall(r'<path class="point" d="M[\d.]+ ([\d.]+)l', drawn)
    assert float(high) + 6.5 < float(low)


def test_bars_and_null_show_only_where_they_exist() -> None:
    rows = [row(0, "clip_demo", 10, 9, 11), row(75, "clip_demo", 20)]
    assert score_svg(column("clip_demo"), rows, chosen=None).count('class="bar"') == 1
    null = Null(mean=7.9, lo=5.2, hi=11.4, n_a=22, n_b=23, n_draws=50)
    rows = [row(0, "fd_demo", 30), row(75, "fd_demo", 20)]
    assert 'class="band"' in score_svg(column("fd_demo", null), rows, chosen=None)
    assert 'class="band"' not in score_svg(column("fd_demo"), rows, chosen=None)


def test_a_share_is_in_per_cent_and_one_point_or_a_flat_line_is_no_error() -> None:
    rows = [row(0, "background_ok", 0.5), row(75, "background_ok", 0.5)]
    assert ">50</text>" in score_svg(column("background_ok"), rows, chosen=None)
    assert score_svg(column("background_ok"), rows[:1], chosen=None) == ""


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(7.1, 35.2, [10, 20, 30]), (-0.3, 0.9, [0, 0.5]), (99, 101, [99, 99.5, 100, 100.5, 101])],
)
def test_the_axis_names_round_values(low: float, high: float, expected: list[float]) -> None:
    assert _round_values(low, high) == pytest.approx(expected)
