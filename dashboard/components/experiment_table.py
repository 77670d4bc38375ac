"""Commits and experiments as a table that stays narrow: frozen names, the parameters that changed, a few chosen scores.

It lists nothing itself. A row that has no scores of its own has dashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from loupe.experiments import Experiment
from loupe.metric_specs import MetricSpec, depends_on_number, known_specs
from loupe.wording import DIRECTIONS, number

_CHECKPOINTS = {"last": "last checkpoint", "best": "best checkpoint"}
MAX_TEXT = 28


@dataclass(frozen=True, slots=True)
class ScoreColumn:
    """One number of metrics/summary.json that a reader can choose to see."""

    key: str
    """E.g. 'cmmd_demo_last'."""
    spec: MetricSpec
    at: str
    """'last' or 'best' checkpoint."""

    @property
    def name(self) -> str:
        """Return how a reader chooses it: 'CMMD × 1000 (demo), last checkpoint'."""
        return f"{self.spec.label}, {_CHECKPOINTS[self.at]}"


def score_columns(rows: Sequence[Experiment]) -> tuple[ScoreColumn, ...]:
    """Return the scores that some row has, those that decide first."""
    known = summary_specs(rows)
    specs = sorted(known, key=lambda s: (not s.ranks, s.criterion is None, not s.headline))
    found = [ScoreColumn(f"{spec.key}_{at}", spec, at) for at in _CHECKPOINTS for spec in specs]
    return tuple(column for column in found if any(column.key in row.scores for row in rows))


def summary_specs(rows: Sequence[Experiment]) -> tuple[MetricSpec, ...]:
    """Return the metrics that the rows' metrics/summary.json speak of, in the order in which pages show them."""
    return tuple(known_specs({key.rpartition("_")[0] for row in rows for key in row.scores}).values())


def experiment_table(rows: Sequence[Experiment], columns: Sequence[ScoreColumn]) -> str:
    """Return the table; the best value of a column among the finished rows is marked."""
    best = {column.key: _best(rows, column) for column in columns}
    head = "".join(
        f'<th scope="col" title="{escape(column.spec.meaning, quote=True)}">{escape(column.spec.label)}'
        f"<small>{_CHECKPOINTS[column.at]} {DIRECTIONS[column.spec.better][0]}</small></th>"
        for column in columns
    )
    body = "".join(_row(row, columns, best) for row in rows)
    return (
        '<div class="lp-scroll"><table class="lp-scores lp-experiments"><thead><tr><th scope="col">Revision</th>'
        f'<th scope="col" class="changes">Changed parameters</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def changes_html(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Return what an experiment changed, a line per parameter."""
    return "".join(
        f"<div>{escape(name)}: {value_html(old)} → <b>{value_html(new)}</b></div>"
        for name, (old, new) in changed.items()
    )


def value_html(value: Any) -> str:
    """Return a parameter's value as params.yaml has it, a long one cut; DVC gives whole numbers as 8.0."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    text = "null" if value is None else str(int(value) if whole else value)
    return escape(text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…")


def state_chip(state: str) -> str:
    """Return the mark of a row that is not finished; '' for a finished one."""
    return f'<span class="lp-chip state {state.lower()}">{escape(state)}</span>' if state else ""


def _row(row: Experiment, columns: Sequence[ScoreColumn], best: Mapping[str, float | None]) -> str:
    origin = f"from {row.baseline}" if row.baseline else row.kind
    made = row.created.replace("T", " ")
    about = escape(" · ".join(part for part in (origin if origin != row.name else "", made) if part))
    cells = "".join(f"<td>{_score(row, column, best[column.key])}</td>" for column in columns)
    return (
        f'<tr class="{row.kind}"><th scope="row">{escape(row.name)}{state_chip(row.state)}<small>{about}</small></th>'
        f'<td class="changes">{changes_html(row.changed)}</td>{cells}</tr>'
    )


def _score(row: Experiment, column: ScoreColumn, best: float | None) -> str:
    value = row.scores.get(column.key)
    if value is None:
        return "–"
    text = number(value, unit=column.spec.unit)
    return f'<b title="Best of those listed">{text}<i> ★</i></b>' if value == best else text


def of_equal_numbers(rows: Sequence[Experiment], spec: MetricSpec) -> bool:
    """Whether the rows' values of a metric are of as many pictures and real photos, where it depends on these."""
    numbers = {(row.scores.get("n_images"), row.scores.get("n_real")) for row in rows}
    return len(numbers) < 2 or not depends_on_number(spec)


def _best(rows: Sequence[Experiment], column: ScoreColumn) -> float | None:
    """Return the best value; None where all have the same, or the metric has no direction, or they do not compare."""
    scored = [row for row in rows if column.key in row.scores]
    values = {row.scores[column.key] for row in scored}
    if len(values) < 2 or column.spec.better not in ("higher", "lower") or not of_equal_numbers(scored, column.spec):
        return None
    return max(values) if column.spec.better == "higher" else min(values)
