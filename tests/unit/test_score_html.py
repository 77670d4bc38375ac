"""What stands below the scores: real photos, null, target, and the controls that no score may be read without."""

from __future__ import annotations

from loupe.evaluation_records import Null, RealScore
from loupe.metric_specs import spec_of
from loupe.run_scores import MetricColumn, Score, StepScores
from loupe.score_html import score_table

ROW = StepScores(75, 8, 8, 45, 0, {"background_ok": Score(0.9, None, None, None, None, None)})


def column(**known: object) -> MetricColumn:
    fields = {"extractor": None, "null": None, "real": None, "target": None, **known}
    return MetricColumn(spec_of("background_ok"), **fields)


def table(*columns: MetricColumn) -> str:
    return score_table([ROW], columns, None, {})


def test_each_control_has_a_line_with_its_score() -> None:
    shown = table(column(controls={"blank white": 1.0, "noise": 0.0}))
    assert ">Blank white</th><td>100 %</td>" in shown
    assert ">Noise</th><td>0 %</td>" in shown
    assert "Target" not in shown


def test_a_control_that_a_metric_has_not_leaves_its_cell_empty() -> None:
    shown = table(column(controls={"noise": 0.25}), column())
    assert ">Noise</th><td>25 %</td><td></td>" in shown


def test_the_null_says_what_was_compared_with_what() -> None:
    pair, alone = (Null(mean=0.9, lo=0.8, hi=1.0, n_a=64, n_b=n_b, n_draws=50) for n_b in (55, 0))
    assert "64 against 55 photos" in table(column(null=pair))
    assert "of 64 photos" in table(column(null=alone))


def test_what_real_photos_score_says_how_many_they_are() -> None:
    assert "<td>97 %<small>of 55 photos</small></td>" in table(column(real=RealScore(value=0.97, n=55)))


def test_the_validation_loss_has_its_column_with_the_paired_difference_and_no_extractor() -> None:
    loss = MetricColumn(spec_of("val_loss"), extractor=None, null=None, real=None, target=None)
    row = StepScores(75, 8, 8, 45, 0, {"val_loss": Score(0.134, None, None, -0.103, -0.114, -0.092)})
    shown = score_table([row], [loss], None, {})
    assert "Validation loss<small>↓ lower is better</small><small>validation photos</small></th>" in shown
    assert "<b>0.134</b>" in shown
    assert 'paired difference: −0.114 to −0.092">−0.103 to base</span>' in shown
