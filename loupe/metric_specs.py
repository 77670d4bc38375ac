"""Which metrics a set of extractors can compute, and their columns; evaluation, dashboard and service all read it.

It computes nothing and imports no torch. The table itself: loupe/metric_table.py. An extractor that has no row there
(DINOv2, a second open_clip model, a file of one's own ...) gets the rows of its role under keys that end in its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from loupe.evaluation_records import ExtractorInfo, Null, RealScore
from loupe.metric_table import (
    DEMO_CLASSIFIER,
    DEMO_CLIP,
    DEMO_LABEL,
    DEMO_MEANING,
    METRIC_SPECS,
    RATER_SPECS,
    STANDARD_INCEPTION,
    VALIDATION_LOSS,
    MetricSpec,
)

__all__ = [
    "DEMO_CLASSIFIER",
    "DEMO_CLIP",
    "MEASURE_ANEW",
    "METRIC_SPECS",
    "RATER_SPECS",
    "STANDARD_INCEPTION",
    "VALIDATION_LOSS",
    "MetricSpec",
    "aim_is_null",
    "aim_of",
    "applicable_specs",
    "array_prefix",
    "checkpoint_columns",
    "column_name",
    "depends_on_number",
    "extractor_of",
    "first_of_role",
    "known_specs",
    "local_weights",
    "spec_of",
]

CLIP_FILE = re.compile(r"(?P<architecture>[^/]+)/(?P<file>.+\.safetensors)(@(?P<tag>[^/@]+))?")
"""Weights on disk for an open_clip model, and the pretrained tag whose settings they need, in evaluate.extractors."""
MEASURE_ANEW = "dvc repro --force --single-item reference && dvc repro"
"""DVC watches no weights outside the project, so a plain `dvc repro` finds nothing to do when they are replaced."""

DEMO_END = "_demo"
COUNTS = ("step", "n_images", "n_used", "n_real", "invalid_count")
ENDS = ("_lo", "_hi")
DIFFERENCES = ("_diff_base", "_diff_best")
LOSS_COLUMNS = ("val_loss", "val_loss_diff_base", "val_loss_diff_base_lo", "val_loss_diff_base_hi")
"""Of metrics/checkpoints.csv, as in metrics/validation.csv."""


def applicable_specs(extractors: Iterable[ExtractorInfo]) -> dict[str, MetricSpec]:
    """Return the specs that these extractors can compute, in table order.

    The key `fid` applies to Inception-2015-12-05 alone, `clip_score` to the first pretrained open_clip model; every
    other extractor has keys that carry its name. Of several extractors of a role the first counts for `select`.
    """
    infos = tuple(extractors)
    found = {}
    for row in (*METRIC_SPECS.values(), *RATER_SPECS):
        for spec in _specs_of_row(row, infos):
            found[spec.key] = spec
    return found


def known_specs(names: Iterable[str]) -> dict[str, MetricSpec]:
    """Return the specs of those columns of checkpoints.csv that are scores, in table order, from their names alone.

    For results without their manifest, e.g. of another commit.
    """
    present = set(names)
    row_of = {key: _row_of_key(key) for key in sorted(present - set(METRIC_SPECS))}
    found = {}
    for row in (*METRIC_SPECS.values(), *RATER_SPECS):
        if row.key in present and row.key in METRIC_SPECS:
            found[row.key] = row
        for key in (key for key, row_of_key in row_of.items() if row_of_key is row):
            name = key.removeprefix(f"{_stem(row)}_")
            spec = _named(row, name)
            found[key] = replace(spec, extractor_name=None, image_column=_column_of_another(spec, name))
    if VALIDATION_LOSS.key in present:
        found[VALIDATION_LOSS.key] = VALIDATION_LOSS
    return found


def spec_of(key: str) -> MetricSpec:
    """Return the spec of one column of checkpoints.csv; KeyError when it is no score."""
    return known_specs((key,))[key]


def checkpoint_columns(specs: Mapping[str, MetricSpec]) -> list[str]:
    """Return the header of metrics/checkpoints.csv for these metrics.

    `<key>` with `<key>_lo` and `<key>_hi` (95 % interval), then `<key>_diff_base` and
    `<key>_diff_best`, the differences to the base model and to the checkpoint that is best in this score, each with
    its paired interval. An empty cell: not computed, or the base (the best) itself. Last comes the validation loss,
    with its difference to base alone.
    """
    columns = list(COUNTS)
    for key in specs:
        columns += [f"{key}{end}" for end in ("", *ENDS)]
        columns += [f"{key}{difference}{end}" for difference in DIFFERENCES for end in ("", *ENDS)]
    return [*columns, *LOSS_COLUMNS]


def depends_on_number(spec: MetricSpec) -> bool:
    """Whether the value depends on the number of pictures, and is comparable at the same number only."""
    return spec.level == "set" and not spec.unbiased


def aim_of(spec: MetricSpec, null: Null | None, real: RealScore | None) -> float | None:
    """Return what real photos have in the metric, to be as near to as possible; None where it is not known."""
    if aim_is_null(spec, null, real):
        return null.mean if null else None
    return real.value if real else None


def aim_is_null(spec: MetricSpec, null: Null | None, real: RealScore | None) -> bool:
    """Whether the aim is the null's mean, not the held-out photos' own score.

    A score of a whole set grows or falls with the number of pictures (Inception Score, Vendi): of two values of photos
    the one of more photos counts, which neither has more of than a checkpoint has pictures.
    """
    if null is None or real is None:
        return real is None
    return spec.level == "set" and null.n_a > real.n


def extractor_of(spec: MetricSpec, extractors: Sequence[ExtractorInfo]) -> ExtractorInfo | None:
    """Return the extractor that the metric is computed with; None for pixels, or when it is not among these."""
    return next((info for info in extractors if spec.extractor_name == info.name), None)


def column_name(extractor_name: str) -> str:
    """Return an extractor's name as part of a column: lower-case letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", extractor_name.lower()).strip("_")


def local_weights(entry: str) -> Path | None:
    """Return the file on disk that an entry of evaluate.extractors would read, there or not; None if it names none."""
    if clip_file := CLIP_FILE.fullmatch(entry):
        return Path(clip_file["file"]).expanduser()
    kind, _, folder = entry.partition(":")
    return Path(folder).expanduser() / "model.safetensors" if folder and kind != "inception" else None


def array_prefix(info: ExtractorInfo, extractors: Sequence[ExtractorInfo]) -> str:
    """Return the prefix of its arrays in an image set: its role for the first of a role, else its name."""
    return _group(info) if first_of_role(info, extractors) else column_name(info.name)


def first_of_role(info: ExtractorInfo, extractors: Sequence[ExtractorInfo]) -> bool:
    """Whether it is the first extractor that does what it does: the one that `select` looks at."""
    return info.name == next(other.name for other in extractors if _group(other) == _group(info))


def _group(info: ExtractorInfo) -> str:
    return "inception" if info.role == "features" else info.role


def _specs_of_row(row: MetricSpec, infos: Sequence[ExtractorInfo]) -> Iterator[MetricSpec]:
    if row.extractor == "pixels":
        yield row
        return
    for info in infos:
        if _group(info) != row.extractor:
            continue
        if info.name == _owner(row, infos):
            meaning = row.meaning if row.extractor_name else f"{row.meaning} Here by {info.name}."
            yield _placed(replace(row, extractor_name=info.name, meaning=meaning), info, infos)
        elif _lends_itself(row) and _is_named(info, infos) and not (row.needs_classes and info.role == "features"):
            yield _placed(_named(row, info.name), info, infos)


def _owner(row: MetricSpec, infos: Sequence[ExtractorInfo]) -> str | None:
    """Return the name of the one extractor whose scores bear the row's key as it stands."""
    if row.extractor_name is not None or row.extractor != "clip":
        return row.extractor_name
    return next((info.name for info in infos if info.role == "clip" and info.kind == "standard"), None)


def _is_named(info: ExtractorInfo, infos: Sequence[ExtractorInfo]) -> bool:
    """Whether the extractor's scores bear its name, because no row of the table is its own."""
    if info.role == "inception" or info.name == DEMO_CLIP:
        return False
    return info.role != "clip" or info.name != _owner(METRIC_SPECS["clip_score"], infos)


def _lends_itself(row: MetricSpec) -> bool:
    """Whether extractors without rows of their own take this one: one of each pair, and those of the raters."""
    return row in RATER_SPECS or (row.key.endswith(DEMO_END) and not row.demo_only)


def _stem(row: MetricSpec) -> str:
    return row.key.removesuffix(DEMO_END)


def _row_of_key(key: str) -> MetricSpec | None:
    """Return the row whose stem the key begins with, the longest one: clip_gap_x is no clip score."""
    if key.endswith(ENDS) or any(difference in key for difference in DIFFERENCES):
        return None
    rows = [row for row in (*METRIC_SPECS.values(), *RATER_SPECS) if _lends_itself(row)]
    fitting = [row for row in rows if key.startswith(f"{_stem(row)}_")]
    return max(fitting, key=lambda row: len(_stem(row)), default=None)


def _named(row: MetricSpec, name: str) -> MetricSpec:
    """Return the row under a key that ends in the extractor's name."""
    meaning = f"{row.meaning.removesuffix(DEMO_MEANING)} By {name}: comparable with the same extractor only."
    label = f"{row.label.removesuffix(DEMO_LABEL)} ({name})"
    return replace(row, key=f"{_stem(row)}_{column_name(name)}", label=label, meaning=meaning, extractor_name=name)


def _placed(spec: MetricSpec, info: ExtractorInfo, infos: Sequence[ExtractorInfo]) -> MetricSpec:
    """Return the spec as it is for the first extractor of its role, else without what only one metric may have."""
    arrays = array_prefix(info, infos)
    if first_of_role(info, infos):
        return replace(spec, arrays=arrays)
    column = _column_of_another(spec, info.name)
    headline = spec.headline and spec.key in METRIC_SPECS
    return replace(spec, criterion=None, ranks=False, headline=headline, image_column=column, arrays=arrays)


def _column_of_another(spec: MetricSpec, name: str) -> str | None:
    return f"{spec.image_column}_{column_name(name)}" if spec.image_column else None
