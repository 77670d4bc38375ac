"""The report's figures as SVG text: grouped bars and a histogram. They take numbers and know nothing of datasets.

Drawn by hand: a plotting library would be one more dependency, and its bytes would differ between machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

SERIES_COLOURS = ("#3b6ea8", "#d9822b", "#5a9a58")
_ROW_PX = 15
_GAP_PX = 8
_LABEL_PX = 130
_BAR_PX = 420
_VALUE_PX = 90
_TEXT = 'font-family="sans-serif" font-size="11"'


def grouped_bars(labels: Sequence[str], series: Mapping[str, Sequence[float]], *, title: str) -> str:
    """Return horizontal bars, one group per label and one bar per series; values are shares from 0 to 1."""
    names = list(series)
    group_px = _ROW_PX * len(names) + _GAP_PX
    height = group_px * len(labels) + 40
    top = max((value for values in series.values() for value in values), default=0.0) or 1.0
    parts = _open(title, _LABEL_PX + _BAR_PX + _VALUE_PX, height)
    for i, name in enumerate(names):
        x = _LABEL_PX + 90 * i
        parts.append(f'<rect x="{x}" y="24" width="10" height="10" fill="{SERIES_COLOURS[i]}"/>')
        parts.append(_text(x + 14, 33, name))
    for row, label in enumerate(labels):
        y = 40 + row * group_px
        parts.append(_text(_LABEL_PX - 6, y + group_px / 2, label, anchor="end"))
        for i, name in enumerate(names):
            value = series[name][row]
            parts.append(_bar(_LABEL_PX, y + i * _ROW_PX, _BAR_PX * value / top, SERIES_COLOURS[i]))
            parts.append(_text(_LABEL_PX + _BAR_PX * value / top + 5, y + i * _ROW_PX + 11, f"{value:.1%}"))
    return "\n".join([*parts, "</svg>"])


def histogram(values: Sequence[int], *, title: str, unit: str, n_bins: int = 12) -> str:
    """Return horizontal bars of how many of `values` fall into each of equally wide bins."""
    low, high = min(values), max(values)
    width = max(1, -(-(high - low + 1) // n_bins))
    counts = [0] * (-(-(high - low + 1) // width))
    for value in values:
        counts[(value - low) // width] += 1
    parts = _open(title, _LABEL_PX + _BAR_PX + _VALUE_PX, 30 + len(counts) * (_ROW_PX + 3))
    for row, count in enumerate(counts):
        first = low + row * width
        y = 28 + row * (_ROW_PX + 3)
        label = f"{first}" if width == 1 else f"{first}–{first + width - 1}"
        parts.append(_text(_LABEL_PX - 6, y + 11, f"{label} {unit}", anchor="end"))
        parts.append(_bar(_LABEL_PX, y, _BAR_PX * count / max(counts), SERIES_COLOURS[0]))
        parts.append(_text(_LABEL_PX + _BAR_PX * count / max(counts) + 5, y + 11, str(count)))
    return "\n".join([*parts, "</svg>"])


def _open(title: str, width: float, height: float) -> list[str]:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">'
    return [head, f"<title>{escape(title)}</title>", _text(0, 14, title, weight="bold")]


def _bar(x: float, y: float, width: float, colour: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:.1f}" height="{_ROW_PX - 2}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text {place} fill="currentColor" {_TEXT}>{escape(text)}</text>'
