"""One metric over the checkpoints as a small SVG that needs no script and no network. It computes no score.

Marks are those of the review: points with interval bars, the null as a grey band, the recommended checkpoint a diamond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from loupe.run_scores import MetricColumn, StepScores

_WIDTH, _HEIGHT = 330, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 34


@dataclass(frozen=True, slots=True)
class _Axis:
    """A linear scale from values to pixels."""

    low: float
    high: float
    start_px: float
    end_px: float

    def px(self, value: float) -> float:
        return self.start_px + (value - self.low) / (self.high - self.low) * (self.end_px - self.start_px)


def score_svg(column: MetricColumn, rows: Sequence[StepScores], *, chosen: int | None) -> str:
    """Return the curve of one metric; '' when fewer than two checkpoints have it."""
    key, factor = column.spec.key, 100 if column.spec.unit == "share" else 1
    points = [(row.step, row.scores[key]) for row in rows if key in row.scores]
    if len(points) < 2:
        return ""
    values = [factor * v for _, s in points for v in (s.value, s.lo, s.hi) if v is not None]
    if column.null:
        values += [factor * column.null.lo, factor * column.null.hi]
    x = _axis([step for step, _ in points], _LEFT, _WIDTH - _RIGHT, pad=0.03)
    y = _axis(values, _HEIGHT - _BOTTOM, _TOP, pad=0.06)
    parts = [_grid(y), _step_names([step for step, _ in points], x)]
    if column.null:
        parts.append(_band(factor * column.null.lo, factor * column.null.hi, factor * column.null.mean, y))
    line = " ".join(f"{x.px(step):.1f},{y.px(factor * score.value):.1f}" for step, score in points)
    parts += [
        f'<path class="bar" d="M{x.px(step):.1f} {y.px(factor * score.lo):.1f}V{y.px(factor * score.hi):.1f}"/>'
        for step, score in points
        if score.lo is not None and score.hi is not None
    ]
    parts.append(f'<polyline class="line" points="{line}"/>')
    parts += [_point(x.px(step), y.px(factor * score.value), chosen=step == chosen) for step, score in points]
    unit = {"share": "%", "": "score"}.get(column.spec.unit, column.spec.unit)
    axis_names = (
        f'<text class="name" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">'
        "step (0: base model)</text>"
        f'<text class="name" transform="translate(11 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(unit)}</text>'
    )
    label = escape(f"{column.spec.label} over the checkpoints", quote=True)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}{axis_names}</svg>'


def _axis(values: Sequence[float], start_px: float, end_px: float, *, pad: float) -> _Axis:
    low, high = min(values), max(values)
    margin = pad * (high - low) or max(abs(high), 1) * 0.05
    return _Axis(low - margin, high + margin, start_px, end_px)


def _grid(y: _Axis) -> str:
    lines = []
    for value in _round_values(y.low, y.high):
        at = y.px(value)
        text = f"{value:.6g}".replace("-", "\N{MINUS SIGN}")
        lines.append(
            f'<path class="grid" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>'
            f'<text x="{_LEFT - 5}" y="{at + 3.5:.1f}" text-anchor="end">{text}</text>'
        )
    return "".join(lines)


def _round_values(low: float, high: float) -> list[float]:
    """Return about four values between low and high that are whole multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [place * step for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _step_names(steps: Sequence[int], x: _Axis) -> str:
    stride = max(1, -(-len(steps) // 8))
    return "".join(
        f'<text x="{x.px(step):.1f}" y="{_HEIGHT - _BOTTOM + 14}" text-anchor="middle">{step}</text>'
        for step in steps[::stride]
    )


def _band(lo: float, hi: float, mean: float, y: _Axis) -> str:
    width = _WIDTH - _RIGHT - _LEFT
    return (
        f'<rect class="band" x="{_LEFT}" y="{y.px(hi):.1f}" width="{width}" height="{y.px(lo) - y.px(hi):.1f}"/>'
        f'<path class="null" d="M{_LEFT} {y.px(mean):.1f}H{_WIDTH - _RIGHT}"/>'
    )


def _point(x: float, y: float, *, chosen: bool) -> str:
    if chosen:
        return f'<path class="point" d="M{x:.1f} {y - 6.5:.1f}l6.5 6.5l-6.5 6.5l-6.5 -6.5z"/>'
    return f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
