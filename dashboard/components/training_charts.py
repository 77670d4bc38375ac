"""Charts of a training run: one quantity each, over the steps; validation also over timesteps. It scores nothing.

Colours and marks are those of curves.py. A cell that is absent leaves a gap, never a zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from dashboard.components.curves import HEIGHT_PX, MAX_POINTS, NULL, SCORE
from loupe.train_records import ValidationRow, ValidationTimestepRow
from loupe.wording import step_label

LOSS_TITLE = "mean squared error  ↓"


def line_chart(points: Sequence[tuple[int, float | None]], *, unit: str, zero: bool = True) -> alt.Chart:
    """Return one curve over the steps; of a long one every n-th point and the last."""
    stride = max(1, len(points) // MAX_POINTS)
    shown = [*points[::stride], *([points[-1]] if (len(points) - 1) % stride else [])]
    data = pd.DataFrame(shown, columns=["step", "value"]).dropna()
    return (
        alt.Chart(data)
        .mark_line(color=SCORE, strokeWidth=1.5, point=len(data) == 1)
        .encode(
            x=alt.X("step:Q", title="step", axis=alt.Axis(grid=False)),
            y=alt.Y("value:Q", title=unit, scale=alt.Scale(zero=zero)),
            tooltip=[alt.Tooltip("step:Q"), alt.Tooltip("value:Q", title=unit, format=".4g")],
        )
        .properties(height=HEIGHT_PX)
    )


def _loss_point(row: ValidationRow) -> dict[str, float | None]:
    point: dict[str, float | None] = {"step": row.step, "loss": row.val_loss, "images": row.n_images}
    lo, hi = row.val_loss_diff_base_lo, row.val_loss_diff_base_hi
    if row.val_loss_diff_base is not None and lo is not None and hi is not None:
        of_base = row.val_loss - row.val_loss_diff_base
        point |= {"lo": of_base + lo, "hi": of_base + hi}
    return point


def validation_chart(rows: Sequence[ValidationRow]) -> alt.LayerChart:
    """Return the validation loss at each checkpoint, a dashed line at the base model's.

    The bars are the interval of the paired difference to the base model, laid around the loss.
    """
    data = [_loss_point(row) for row in rows]
    base = alt.Chart(alt.Data(values=data)).encode(
        x=_checkpoints([row.step for row in rows]),
        y=alt.Y("loss:Q", title=LOSS_TITLE, scale=alt.Scale(zero=False)),
    )
    tooltip = [alt.Tooltip("step:Q"), alt.Tooltip("loss:Q", format=".5f"), alt.Tooltip("images:Q")]
    bars = base.transform_filter("isValid(datum.lo)").mark_rule(color=SCORE, opacity=0.45, strokeWidth=5)
    layers = [
        bars.encode(y=alt.Y("lo:Q", title=LOSS_TITLE), y2="hi:Q"),
        base.mark_line(color=SCORE),
        base.mark_point(color=SCORE, filled=True, size=50, opacity=1).encode(tooltip=tooltip),
    ]
    if rows[0].step == 0:
        layers.insert(0, _level(rows[0].val_loss))
    return alt.layer(*layers).properties(height=HEIGHT_PX)


def validation_difference_chart(rows: Sequence[ValidationRow]) -> alt.LayerChart:
    """Return each checkpoint's paired difference to the base model with its 95 % interval; below zero is better."""
    data = [
        {
            "step": row.step,
            "difference": row.val_loss_diff_base,
            "lo": row.val_loss_diff_base_lo,
            "hi": row.val_loss_diff_base_hi,
        }
        for row in rows
        if row.val_loss_diff_base is not None
    ]
    base = alt.Chart(alt.Data(values=data)).encode(x=_checkpoints([row.step for row in rows]))
    title = "loss minus the base model's  ↓"
    y = alt.Y("difference:Q", title=title)
    names = {"difference": ".5f", "lo": ".5f", "hi": ".5f"}
    tooltip = [alt.Tooltip("step:Q"), *(alt.Tooltip(f"{name}:Q", format=form) for name, form in names.items())]
    bars = base.transform_filter("isValid(datum.lo)").mark_rule(color=SCORE, opacity=0.45, strokeWidth=5)
    return alt.layer(
        _level(0.0),
        bars.encode(y=alt.Y("lo:Q", title=title), y2="hi:Q"),
        base.mark_point(color=SCORE, filled=True, size=50).encode(y=y, tooltip=tooltip),
    ).properties(height=HEIGHT_PX)


def timestep_chart(rows: Sequence[ValidationTimestepRow]) -> alt.LayerChart:
    """Return the validation loss over the timesteps, a curve per checkpoint, darker as training goes on."""
    steps = sorted({row.step for row in rows})
    data = [{"t": r.timestep, "loss": r.loss, "checkpoint": step_label(r.step), "base": r.step == 0} for r in rows]
    colour = alt.Color(
        "checkpoint:N",
        sort=[step_label(step) for step in steps],
        scale=alt.Scale(domain=[step_label(step) for step in steps], range=_shades(len(steps), steps[0] == 0)),
        legend=alt.Legend(title=None, orient="right", symbolType="stroke"),
    )
    chart = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X("t:Q", title="timestep (0: almost clean, right: almost noise)", axis=alt.Axis(grid=False)),
        y=alt.Y(
            "loss:Q", title="mean squared error, logarithmic  ↓", scale=alt.Scale(type="log", nice=False, padding=8)
        ),
        color=colour,
        strokeDash=alt.condition("datum.base", alt.value([4, 3]), alt.value([1, 0])),
        tooltip=[
            alt.Tooltip("checkpoint:N"),
            alt.Tooltip("t:Q", title="timestep"),
            alt.Tooltip("loss:Q", format=".4g"),
        ],
    )
    return alt.layer(chart.mark_line(strokeWidth=1.8), chart.mark_point(filled=True, size=28)).properties(
        height=round(1.5 * HEIGHT_PX)
    )


def _shades(count: int, has_base: bool) -> list[str]:
    """Return grey for the base model, then blues from light to dark: ordered by lightness, so hue is not needed."""
    n_blues = count - has_base
    light, dark = (150, 196, 236), (12, 62, 115)
    blues = [
        "#"
        + "".join(f"{round(a + (b - a) * (place / max(1, n_blues - 1))):02x}" for a, b in zip(light, dark, strict=True))
        for place in range(n_blues)
    ]
    return ([NULL] if has_base else []) + blues


def _checkpoints(steps: Sequence[int]) -> alt.X:
    axis = alt.Axis(values=list(steps) if len(steps) <= 8 else alt.Undefined, grid=False)
    return alt.X("step:Q", title="step (0: base model)", axis=axis)


def _level(value: float) -> alt.Chart:
    data: list[dict[str, Any]] = [{"level": value}]
    return alt.Chart(alt.Data(values=data)).mark_rule(color=NULL, strokeDash=[5, 4]).encode(y="level:Q")
