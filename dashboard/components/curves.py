"""Curves over training steps: one chart per metric, so that two extractors never share an axis. It computes no score.

Colours are the same in light and dark and told apart without hue: scores are solid with points, references dashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from loupe.evaluation_records import Selection
from loupe.records import CheckpointInfo, TrainRow
from loupe.run_scores import MetricColumn, StepScores
from loupe.wording import DIRECTIONS

SCORE, NULL, TARGET = "#2f7fc4", "#8a8d93", "#d55e00"
HEIGHT_PX = 220
MAX_POINTS = 1000


def score_chart(column: MetricColumn, rows: Sequence[StepScores], selection: Selection | None) -> alt.LayerChart:
    """Return the curve of one metric with its intervals, and null, real photos and target where they exist."""
    spec = column.spec
    factor = 100 if spec.unit == "share" else 1
    values = [_point(row, spec.key, factor, selection) for row in rows if spec.key in row.scores]
    unit = {"share": "%", "": "score"}.get(spec.unit, spec.unit)
    y = alt.Y("score:Q", title=f"{unit}  {DIRECTIONS[spec.better][0]}", scale=alt.Scale(zero=False))
    base = alt.Chart(alt.Data(values=values)).encode(x=_steps_axis(rows))
    tooltip = [alt.Tooltip("step:Q"), alt.Tooltip("score:Q", format=".4g"), alt.Tooltip("interval:N")]
    layers = list(_references(column, factor))
    if any("lo" in value for value in values):
        layers.append(base.mark_rule(color=SCORE, opacity=0.45, strokeWidth=5).encode(y="lo:Q", y2="hi:Q"))
    layers.append(base.mark_line(color=SCORE, strokeWidth=2).encode(y=y))
    layers.append(
        base.mark_point(filled=True, color=SCORE, opacity=1).encode(
            y=y,
            tooltip=tooltip,
            size=alt.condition("datum.chosen", alt.value(170), alt.value(45)),
            shape=alt.condition("datum.chosen", alt.value("diamond"), alt.value("circle")),
        )
    )
    return alt.layer(*layers).properties(height=HEIGHT_PX)


def loss_chart(curve: Sequence[TrainRow], checkpoints: Sequence[CheckpointInfo]) -> alt.LayerChart:
    """Return the training loss, raw behind smoothed, with a tick where a checkpoint was kept."""
    stride = max(1, len(curve) // MAX_POINTS)
    shown = [*curve[::stride], curve[-1]]
    # As a frame, which Streamlit sends as Arrow; of a list Altair checks and copies every row, half a second in all.
    data = pd.DataFrame({"step": [r.step for r in shown], "loss": [r.loss for r in shown]})
    data["smoothed"] = [row.loss_smoothed for row in shown]
    base = alt.Chart(data).encode(x=alt.X("step:Q", title="step", axis=alt.Axis(grid=False, tickCount=10)))
    tooltip = [alt.Tooltip("step:Q"), alt.Tooltip("smoothed:Q", format=".4f"), alt.Tooltip("loss:Q", format=".4f")]
    y = alt.Y("smoothed:Q", title="mean squared error", scale=alt.Scale(zero=False))
    kept = alt.Chart(alt.Data(values=[{"step": checkpoint.step} for checkpoint in checkpoints]))
    return alt.layer(
        kept.mark_rule(color=NULL, opacity=0.35, strokeDash=[2, 3]).encode(x="step:Q"),
        base.mark_line(color=NULL, opacity=0.45, strokeWidth=1).encode(y="loss:Q"),
        base.mark_line(color=SCORE, strokeWidth=2).encode(y=y, tooltip=tooltip),
    ).properties(height=HEIGHT_PX)


def reference_key(column: MetricColumn) -> str:
    """Return the legend of a metric's chart in words."""
    parts = [] if column.spec.level == "training" else ["bars: 95 % interval"]
    if column.null:
        parts.append("grey band: null, real against real")
    elif column.real is not None:
        parts.append("grey dashes: real photos")
    if column.target is not None:
        parts.append("orange dashes: target")
    return ", ".join(parts)


def _point(row: StepScores, key: str, factor: int, selection: Selection | None) -> dict[str, Any]:
    score = row.scores[key]
    point: dict[str, Any] = {"step": row.step, "score": score.value * factor, "interval": "none"}
    point["chosen"] = selection is not None and selection.step == row.step
    if score.lo is not None and score.hi is not None:
        lo, hi = score.lo * factor, score.hi * factor
        point |= {"lo": lo, "hi": hi, "interval": f"{lo:.4g} to {hi:.4g}"}
    return point


def _steps_axis(rows: Sequence[StepScores]) -> alt.X:
    steps = [row.step for row in rows]
    ticks = steps if len(steps) <= 8 else alt.Undefined
    scale = alt.Scale(domain=[steps[0], steps[-1]], nice=False)
    return alt.X("step:Q", title="step (0: base model)", scale=scale, axis=alt.Axis(values=ticks, grid=False))


def _references(column: MetricColumn, factor: int) -> list[alt.Chart]:
    layers = []
    if column.null:
        band = alt.Chart(alt.Data(values=[{"lo": column.null.lo * factor, "hi": column.null.hi * factor}]))
        layers.append(band.mark_rect(color=NULL, opacity=0.28).encode(y="lo:Q", y2="hi:Q"))
        layers.append(_level(column.null.mean * factor, NULL))
    elif column.real is not None:
        layers.append(_level(column.real.value * factor, NULL))
    if column.target is not None:
        layers.append(_level(column.target * factor, TARGET))
    return layers


def _level(value: float, colour: str) -> alt.Chart:
    return alt.Chart(alt.Data(values=[{"level": value}])).mark_rule(color=colour, strokeDash=[6, 4]).encode(y="level:Q")
