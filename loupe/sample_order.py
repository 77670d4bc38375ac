"""In which order a reviewer sees rows of pictures, and which gates a picture failed. It reads no file.

A row is one prompt with one seed across all checkpoints. It is judged at one step, against the base model where asked.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from loupe.metric_specs import MetricSpec
from loupe.records import BASE_STEP
from loupe.run_files import Cells
from loupe.run_samples import SampleKey

Row = tuple[str, int]
"""(prompt id, seed index)"""
INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class SampleOrder:
    """How rows are sorted; `column` is the column of metrics/per_image.csv that it goes by."""

    name: str
    """As a reviewer reads it, and as it stands in the address."""
    by: Literal["run", "prompt", "gain", "loss", "worst"]
    column: str = ""
    lower_is_better: bool = False


RUN_ORDER = SampleOrder("Order of the run", "run")
PROMPT_ORDER = SampleOrder("Prompt, A to Z", "prompt")


def gate_columns(specs: Iterable[MetricSpec], per_image: Mapping[SampleKey, Cells]) -> tuple[str, ...]:
    """Return the columns that say yes or no of every picture that has a value there; what measures cannot be failed."""
    shares = {spec.image_column: spec for spec in specs if spec.image_column and spec.unit == "share"}
    return tuple(
        column
        for column, spec in shares.items()
        if all(yes_or_no(spec, row[column]) is not None for row in per_image.values() if column in row)
    )


def sample_orders(specs: Iterable[MetricSpec], gates: Collection[str] = ()) -> tuple[SampleOrder, ...]:
    """Return the orders that the metrics of a run allow; a column of `gates` and one without direction give none."""
    orders = [RUN_ORDER, PROMPT_ORDER]
    for spec in specs:
        if spec.image_column is None or spec.image_column in gates or spec.better == "closer to real":
            continue
        column, lower = spec.image_column, spec.better != "higher"
        orders += [
            SampleOrder(f"Biggest gain in {column}", "gain", column, lower),
            SampleOrder(f"Biggest loss in {column}", "loss", column, lower),
            SampleOrder(f"{'Highest' if lower else 'Lowest'} {column}", "worst", column, lower),
        ]
    return tuple(orders)


def sorted_rows(
    rows: Sequence[Row],
    texts: Mapping[str, str],
    per_image: Mapping[SampleKey, Cells],
    *,
    order: SampleOrder,
    step: int,
) -> list[Row]:
    """Return the rows in an order; those without the value come last, and ties keep the order of the run.

    Gain and loss are the row's value at `step` minus that of the base model, turned so that more is better.
    """
    if order.by == "run":
        return list(rows)
    if order.by == "prompt":
        return sorted(rows, key=lambda row: (texts.get(row[0], row[0]).casefold(), row[0], row[1]))
    sign = -1 if order.lower_is_better else 1

    def rank(row: Row) -> float:
        value = _value(per_image.get((*row, step)), order.column)
        if order.by == "worst":
            return sign * value
        gain = sign * (value - _value(per_image.get((*row, BASE_STEP)), order.column))
        return -gain if order.by == "gain" else gain

    ranks = {row: rank(row) for row in rows}
    return sorted(rows, key=lambda row: (math.isnan(ranks[row]), 0.0 if math.isnan(ranks[row]) else ranks[row]))


def failed_gates(values: Cells | None, specs: Iterable[MetricSpec]) -> frozenset[str]:
    """Return what a picture failed: 'invalid', or the columns of yes-or-no scores that are no."""
    if not values:
        return frozenset()
    if "invalid_reason" in values:
        return frozenset({INVALID})
    return frozenset(
        spec.image_column
        for spec in specs
        if spec.image_column in values and yes_or_no(spec, values[spec.image_column]) is False
    )


def yes_or_no(spec: MetricSpec, value: float | str) -> bool | None:
    """Whether a picture holds a score's demand (of a score that should be low: that it is 0); None when it measures."""
    if spec.unit != "share" or value not in (0, 1):
        return None
    return bool(value) != (spec.better == "lower")


def _value(values: Cells | None, column: str) -> float:
    value = values.get(column) if values else None
    return value if isinstance(value, float) else math.nan
