"""The scores of a run as a Markdown table, for README, model cards and terminals. It reads through RunStore only.

Unless metrics are asked for, only headline ones have a column: all of them are in metrics/checkpoints.csv.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from loupe.errors import PipelineError, nearest_names
from loupe.records import BASE_STEP
from loupe.run_scores import MetricColumn, Score, StepScores
from loupe.run_store import RunStore

_DIRECTION = {"higher": "higher is better", "lower": "lower is better", "closer to real": "like real photos is best"}


def score_report(store: RunStore, *, keys: Sequence[str] = (), against: Literal["base", "best"] | None = None) -> str:
    """Return a row per checkpoint, the null or real value of each score and the controls'; '' without scores.

    `keys` names the metrics, in the order wanted; empty: the headline ones. An unknown one is a PipelineError.
    `against` asks for the paired differences to the base model, or to the checkpoint that is best in each score,
    instead of the scores.
    """
    rows = store.scores()
    if not rows:
        return ""
    metrics = _columns(store.metrics(), keys)
    if against:
        return _differences(rows, metrics, against)
    head = ["checkpoint", "pictures", *(f"`{column.spec.key}`, {_direction(column)}" for column in metrics)]
    lines = [_line(head), _line(["---"] * len(head))]
    lines += [_line(_cells(row, metrics)) for row in rows]
    lines.append(_line(["real photos", "", *(_reference(column) for column in metrics)]))
    for name in dict.fromkeys(name for column in metrics for name in column.controls):
        lines.append(_line([name, "", *(_control(column.controls.get(name)) for column in metrics)]))
    return "\n".join(lines)


def _differences(
    rows: Sequence[StepScores], metrics: tuple[MetricColumn, ...], against: Literal["base", "best"]
) -> str:
    head = ["checkpoint", *(f"`{column.spec.key}`, difference to the {against}" for column in metrics)]
    lines = [_line(head), _line(["---"] * len(head))]
    compared_with = {column.spec.key: _compared_with(rows, column.spec.key, against) for column in metrics}
    for row in rows:
        scores = [(row.scores.get(key), row.step == step) for key, step in compared_with.items()]
        cells = [against if score and is_it else _difference(score, against) for score, is_it in scores]
        lines.append(_line([_name(row), *cells]))
    return "\n".join(lines)


def _compared_with(rows: Sequence[StepScores], key: str, against: Literal["base", "best"]) -> int | None:
    """Return the step that the others are compared with; None where more than one has no difference to the best."""
    if against == "base":
        return BASE_STEP
    scored = {row.step: row.scores[key] for row in rows if row.step != BASE_STEP and key in row.scores}
    without = [step for step, score in scored.items() if score.diff_best is None]
    return without[0] if len(without) == 1 else None


def _difference(score: Score | None, against: Literal["base", "best"]) -> str:
    if score is None:
        return "–"
    if against == "base":
        value, lo, hi = score.diff_base, score.diff_base_lo, score.diff_base_hi
    else:
        value, lo, hi = score.diff_best, score.diff_best_lo, score.diff_best_hi
    if value is None:
        return "–"
    interval = "" if lo is None or hi is None else f" [{lo:+.3g}, {hi:+.3g}]"
    return f"{value:+.3g}{interval}"


def _columns(columns: Sequence[MetricColumn], keys: Sequence[str]) -> tuple[MetricColumn, ...]:
    if not keys:
        return tuple(column for column in columns if column.spec.headline)
    by_key = {column.spec.key: column for column in columns}
    if unknown := [key for key in keys if key not in by_key]:
        known = ", ".join(nearest_names(unknown[0], list(by_key)) or by_key)
        raise PipelineError(f"This run has no score {', '.join(unknown)}. Nearest: {known}.")
    return tuple(by_key[key] for key in keys)


def _direction(column: MetricColumn) -> str:
    return _DIRECTION.get(column.spec.better, column.spec.better)


def _cells(row: StepScores, metrics: tuple[MetricColumn, ...]) -> list[str]:
    return [_name(row), str(row.n_used), *(_score(row.scores.get(column.spec.key)) for column in metrics)]


def _name(row: StepScores) -> str:
    return "base model" if row.step == 0 else f"step {row.step}"


def _score(score: Score | None) -> str:
    if score is None:
        return "–"
    interval = "" if score.lo is None or score.hi is None else f" [{score.lo:.3g}, {score.hi:.3g}]"
    return f"{score.value:.3g}{interval}"


def _reference(column: MetricColumn) -> str:
    null = column.null
    if null is not None and column.shows_null:
        photos = f"{null.n_a} against {null.n_b} photos" if null.n_b else f"{null.n_a} photos"
        return f"{null.mean:.3g} [{null.lo:.3g}, {null.hi:.3g}] ({photos})"
    return "–" if column.real is None else f"{column.real.value:.3g} ({column.real.n} photos)"


def _control(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
