"""What is said of a null: an interval only where there were several draws, a floor only where there is one."""

import pytest

from loupe.evaluation_records import Null
from loupe.metric_specs import spec_of
from loupe.metrics.selection import compare_checkpoints
from loupe.metrics.selection_evidence import Gates, StepEvidence
from loupe.metrics.selection_text import Setting, selection_reason
from loupe.run_scores import MetricColumn
from loupe.score_html import score_table


@pytest.mark.parametrize(
    ("key", "n_b", "is_floor"), [("cmmd_demo", 55, True), ("cmmd_demo", 0, False), ("background_ok", 55, False)]
)
def test_a_floor_is_claimed_only_where_lower_is_better_and_photos_are_compared(
    key: str, n_b: int, is_floor: bool
) -> None:
    null = Null(mean=0.9, lo=0.8, hi=1.0, n_a=64, n_b=n_b, n_draws=50)
    column = MetricColumn(spec_of(key), extractor=None, null=null, real=None, target=None)
    assert ("no score can be expected to do better" in score_table([], [column], None, {})) == is_floor


def test_a_null_of_one_draw_has_no_interval() -> None:
    step = StepEvidence(10, 64, 0, 1.0, 1.0, 0.0, gains={}, text_gain=None)
    gates = Gates("clip_demo", 0.9, 0.8, 0, None, 0.01, 68)
    comparison = compare_checkpoints([step], keys={}, weights={}, gates=gates)
    null = Null(mean=-0.02895, lo=-0.02895, hi=-0.02895, n_a=40, n_b=20, n_draws=1)
    said = selection_reason(comparison, Setting({0: {}, 10: {}}, "cmmd_demo", 16, 20, (), null))
    assert said.endswith("give cmmd_demo -0.02895, a single value, of fewer photos than the 64 pictures.")
