"""The scores as Markdown: values with intervals, and paired differences to base and to the best of each score."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from loupe.atomic_io import write_csv
from loupe.errors import PipelineError
from loupe.evaluation_records import Null, RealScore
from loupe.metric_specs import METRIC_SPECS, checkpoint_columns
from loupe.run_scores import MetricColumn, Score, StepScores
from loupe.run_store import RunStore
from loupe.score_html import score_table
from loupe.score_report import score_report

SPECS = {key: METRIC_SPECS[key] for key in ("fd_demo", "background_ok")}
OTHER = "fd_eyes_12345678"


def ends(name: str, value: float, half: float) -> dict[str, float]:
    return {name: value, f"{name}_lo": value - half, f"{name}_hi": value + half}


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    base = {"step": 0, "n_images": 8, "n_used": 8, "n_real": 5, "invalid_count": 0, "fd_demo": 20.0, OTHER: 3.0}
    rows = [
        {**base, "background_ok": 0.0, **ends("fd_demo_diff_best", 9.0, 1.0)},
        {**base, "step": 10, "fd_demo": 11.0, "background_ok": 0.5, **ends("fd_demo_diff_base", -9.0, 1.0)},
        {
            **base, "step": 20, "fd_demo": 12.0, "background_ok": 1.0, **ends("fd_demo_diff_base", -8.0, 1.0),
            **ends("fd_demo_diff_best", 1.0, 1.5),
        },
    ]  # fmt: skip
    write_csv(tmp_path / "metrics" / "checkpoints.csv", [*checkpoint_columns(SPECS), OTHER], rows)
    return RunStore(tmp_path)


def test_differences_to_the_best_are_read_and_printed_with_their_interval(store: RunStore) -> None:
    lines = score_report(store, keys=["fd_demo"], against="best").splitlines()
    assert lines[0] == "| checkpoint | `fd_demo`, difference to the best |"
    assert lines[2:] == ["| base model | +9 [+8, +10] |", "| step 10 | best |", "| step 20 | +1 [-0.5, +2.5] |"]


def test_differences_to_the_base(store: RunStore) -> None:
    lines = score_report(store, keys=["fd_demo"], against="base").splitlines()
    assert lines[2:] == ["| base model | base |", "| step 10 | -9 [-10, -8] |", "| step 20 | -8 [-9, -7] |"]


def test_a_difference_that_could_not_be_had_is_a_dash_and_not_what_it_was_taken_from(tmp_path: Path) -> None:
    counts = {"n_images": 8, "n_used": 8, "n_real": 5, "invalid_count": 0}
    rows = [
        {"step": 0, **counts, "background_ok": 0.5},
        {"step": 10, **counts, "fd_demo": 11.0, "background_ok": 0.5},
        {"step": 20, **counts, "fd_demo": 12.0, "background_ok": 0.5, "background_ok_diff_best": 0.0},
    ]
    write_csv(tmp_path / "metrics" / "checkpoints.csv", checkpoint_columns(SPECS), rows)
    to_base = score_report(RunStore(tmp_path), keys=list(SPECS), against="base").splitlines()
    assert to_base[2:] == ["| base model | – | base |", "| step 10 | – | – |", "| step 20 | – | – |"]
    to_best = score_report(RunStore(tmp_path), keys=list(SPECS), against="best").splitlines()
    assert to_best[2:] == ["| base model | – | – |", "| step 10 | – | best |", "| step 20 | – | +0 |"]


@pytest.mark.parametrize(
    ("key", "null_n", "shown"),
    [
        ("is_demo", 64, "3.4 [3, 3.8] (64 photos)"),
        ("is_demo", 55, "3.1 (55 photos)"),
        ("single_object", 64, "3.1 (55 photos)"),
        ("fd_demo", 22, "3.4 [3, 3.8] (22 against 33 photos)"),
    ],
)
def test_real_photos_are_shown_with_their_number_and_a_set_by_the_one_nearest_to_the_pictures(
    key: str, null_n: int, shown: str
) -> None:
    """55 val photos have another Inception Score than 64 pictures could have; a mean of pictures has the same."""
    spec = METRIC_SPECS[key]
    null = Null(mean=3.4, lo=3.0, hi=3.8, n_a=null_n, n_b=33 if spec.against_real else 0, n_draws=50)
    real = None if spec.against_real else RealScore(value=3.1, n=55)
    scores = {key: Score(3.0, None, None, None, None, None)}
    store = Mock(scores=lambda: (StepScores(0, 64, 64, 55, 0, scores),))
    column = MetricColumn(spec, extractor=None, null=null, real=real, target=None)
    store.metrics = lambda: (column,)
    assert f"{column.aim:g}" == shown.split(maxsplit=1)[0], "what votes are compared with"
    assert score_report(store, keys=[key]).splitlines()[-1] == f"| real photos |  | {shown} |"


def test_a_score_of_another_extractor_can_be_asked_for_without_its_manifest(store: RunStore) -> None:
    assert score_report(store, keys=[OTHER]).splitlines()[2] == "| base model | 8 | 3 |"
    with pytest.raises(PipelineError, match=f"Nearest: .*{OTHER}"):
        score_report(store, keys=["fd_eyes"])


def test_the_table_of_pages_tells_the_difference_to_the_best(store: RunStore) -> None:
    table = score_table(store.scores(), store.metrics(), None, {})
    assert "to the best: +1.00" in table or "to the best: +1" in table
    assert table.count("to the best") == 1, "step 10 is the best; the base shows no difference of its own"
