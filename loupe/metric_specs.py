"""Every metric's name, direction and meaning, in one literal table that evaluation, dashboard and service all read.

It computes nothing and imports no torch: `compute` names the function as text, resolved when it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric, i.e. one column of metrics/checkpoints.csv (with _lo and _hi where it has an interval)."""

    key: str
    label: str
    level: Literal["image", "set"]
    """image: a mean of values per picture (also a column of per_image.csv); set: of all pictures together."""
    better: Literal["higher", "lower", "closer to real", "zero"]
    unit: str
    """'' for a pure number, 'share', 'points' ..."""
    extractor: Literal["inception", "clip", "pixels"]
    target: str | None
    """Field of evaluate.targets that speaks of this metric, or None."""
    meaning: str
    """One sentence for a reader who has not met it."""
    compute: str
    """'package.module:function'."""


def metric_specs() -> dict[str, MetricSpec]:
    """Return key -> spec, in the order in which metrics are shown."""
    return dict(METRIC_SPECS)


METRIC_SPECS: dict[str, MetricSpec] = {}
