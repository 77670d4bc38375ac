"""Which metrics a set of extractors can compute, and their columns; evaluation, dashboard and service all read it.

It computes nothing and imports no torch. The table itself: loupe/metric_table.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from loupe.evaluation_records import ExtractorInfo
from loupe.metric_table import DEMO_CLASSIFIER, DEMO_CLIP, METRIC_SPECS, STANDARD_INCEPTION, MetricSpec

__all__ = [
    "DEMO_CLASSIFIER",
    "DEMO_CLIP",
    "METRIC_SPECS",
    "STANDARD_INCEPTION",
    "MetricSpec",
    "applicable_specs",
    "checkpoint_columns",
    "has_interval",
    "metric_specs",
]


def metric_specs() -> dict[str, MetricSpec]:
    """Return key -> spec, in the order in which metrics are shown."""
    return dict(METRIC_SPECS)


def applicable_specs(extractors: Iterable[ExtractorInfo]) -> dict[str, MetricSpec]:
    """Return the specs that these extractors can compute, in table order.

    The key `fid` applies to Inception-2015-12-05 alone; every other extractor has keys that carry its name.
    """
    by_role = {info.role: info for info in extractors}
    return {key: spec for key, spec in METRIC_SPECS.items() if _applies(spec, by_role.get(spec.extractor))}


def checkpoint_columns(keys: Iterable[str]) -> list[str]:
    """Return the header of metrics/checkpoints.csv for these metric keys.

    `<key>` with `<key>_lo` and `<key>_hi` (95 % interval, where `has_interval`), then `<key>_diff_base` with its paired
    interval. An empty cell: not computed, or the base itself.
    """
    columns = ["step", "n_images", "n_used", "n_real", "invalid_count"]
    for key in keys:
        columns.append(key)
        if has_interval(METRIC_SPECS[key]):
            columns += [f"{key}_lo", f"{key}_hi"]
        columns += [f"{key}_diff_base", f"{key}_diff_base_lo", f"{key}_diff_base_hi"]
    return columns


def has_interval(spec: MetricSpec) -> bool:
    """Whether a value has an interval of its own: the bootstrap of most set metrics is biased, repeats narrow a set."""
    return spec.level == "image" or spec.unbiased


def _applies(spec: MetricSpec, info: ExtractorInfo | None) -> bool:
    if spec.extractor == "pixels":
        return True
    if info is None:
        return False
    if spec.extractor_name is not None:
        return info.name == spec.extractor_name
    return info.kind == "standard"
