"""Every metric's name, direction and meaning, in one literal table that evaluation, dashboard and service all read.

It computes nothing and imports no torch: `compute` names the function as text, resolved when it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from loupe.records import ExtractorInfo

STANDARD_INCEPTION = "inception-2015-12-05"
DEMO_CLASSIFIER = "demo-classifier"
DEMO_CLIP = "demo-clip"


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric, i.e. one column of metrics/checkpoints.csv (with further columns, see `checkpoint_columns`)."""

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
    """'package.module:function'; level image: (images) -> float64 [N], level set: (images, real) -> float."""
    extractor_name: str | None = None
    """The one extractor that this key is for; None: any of its role that is standard (pixels need none)."""
    resamples: str | None = None
    """Level set only: 'package.module:function', (images, real, counts [R, N]) -> float64 [R], the value under each
    bootstrap resample."""
    image_column: str | None = None
    """Level image only: the column of metrics/per_image.csv that `key` is the mean of."""
    against_real: bool = False
    """Level set only: whether the value compares with the real images (a distance) or stands alone."""
    ranks: bool = False
    """Whether `select` orders checkpoints by it (one per set of extractors)."""


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

    `<key>` with `<key>_lo` and `<key>_hi` (95 % interval, metrics of level image only: the bootstrap of a set metric
    is biased), then `<key>_diff_base` with its paired interval. An empty cell: not computed, or the base itself.
    """
    columns = ["step", "n_images", "n_used", "n_real", "invalid_count"]
    for key in keys:
        columns.append(key)
        if METRIC_SPECS[key].level == "image":
            columns += [f"{key}_lo", f"{key}_hi"]
        columns += [f"{key}_diff_base", f"{key}_diff_base_lo", f"{key}_diff_base_hi"]
    return columns


def _applies(spec: MetricSpec, info: ExtractorInfo | None) -> bool:
    if spec.extractor == "pixels":
        return True
    if info is None:
        return False
    if spec.extractor_name is not None:
        return info.name == spec.extractor_name
    return info.kind == "standard"


_FRECHET = {
    "compute": "loupe.metrics.frechet:frechet_score",
    "resamples": "loupe.metrics.frechet:frechet_resamples",
    "against_real": True,
}
_INCEPTION_SCORE = {
    "compute": "loupe.metrics.inception_score:inception_score",
    "resamples": "loupe.metrics.inception_score:inception_score_resamples",
}

_SPECS = (
    MetricSpec(
        key="fid",
        label="FID",
        level="set",
        better="lower",
        unit="",
        extractor="inception",
        extractor_name=STANDARD_INCEPTION,
        target="fid",
        ranks=True,
        meaning="How far the pictures as a whole lie from the real photos, in features of Inception-2015-12-05; "
        "comparable only at the same number of pictures.",
        **_FRECHET,
    ),
    MetricSpec(
        key="fd_demo",
        label="Fréchet distance (demo)",
        level="set",
        better="lower",
        unit="",
        extractor="inception",
        extractor_name=DEMO_CLASSIFIER,
        target=None,
        ranks=True,
        meaning="How far the pictures as a whole lie from the real photos, in features of the demo classifier; "
        "not FID, and comparable only inside this project.",
        **_FRECHET,
    ),
    MetricSpec(
        key="clip_score",
        label="CLIP score",
        level="image",
        better="higher",
        unit="points",
        extractor="clip",
        target="clip_score",
        image_column="clip",
        meaning="100 times the cosine between picture and prompt, as the named CLIP model sees them.",
        compute="loupe.metrics.clip_score:clip_scores",
    ),
    MetricSpec(
        key="clip_demo",
        label="Text-image score (demo)",
        level="image",
        better="higher",
        unit="points",
        extractor="clip",
        extractor_name=DEMO_CLIP,
        target=None,
        image_column="clip",
        meaning="100 times the cosine between picture and prompt, as the small demo model sees them; not a CLIP score.",
        compute="loupe.metrics.clip_score:clip_scores",
    ),
    MetricSpec(
        key="colour_demo",
        label="Colour as asked (demo)",
        level="image",
        better="higher",
        unit="share",
        extractor="inception",
        extractor_name=DEMO_CLASSIFIER,
        target=None,
        image_column="colour_ok",
        meaning="Share of the pictures in which the demo classifier sees the colour that the prompt asks for.",
        compute="loupe.metrics.colour:colour_matches",
    ),
    MetricSpec(
        key="background_ok",
        label="White background",
        level="image",
        better="higher",
        unit="share",
        extractor="pixels",
        target=None,
        image_column="background_ok",
        meaning="Share of the pictures whose 6 % border is white: at least 99 % of its pixels have R, G and B >= 240.",
        compute="loupe.metrics.background:background_passes",
    ),
    MetricSpec(
        key="inception_score",
        label="Inception Score",
        level="set",
        better="closer to real",
        unit="",
        extractor="inception",
        extractor_name=STANDARD_INCEPTION,
        target="inception_score",
        meaning="Roughly how many ImageNet classes the pictures cover with confidence; for one kind of product the "
        "value of the real photos is the aim, not a high one.",
        **_INCEPTION_SCORE,
    ),
    MetricSpec(
        key="is_demo",
        label="Inception Score (demo)",
        level="set",
        better="closer to real",
        unit="",
        extractor="inception",
        extractor_name=DEMO_CLASSIFIER,
        target=None,
        meaning="Roughly how many kinds (article type and colour) the demo classifier sees with confidence; the value "
        "of the real photos is the aim, not a high one.",
        **_INCEPTION_SCORE,
    ),
)

METRIC_SPECS: dict[str, MetricSpec] = {spec.key: spec for spec in _SPECS}
