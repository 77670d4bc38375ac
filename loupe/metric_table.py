"""The literal table of every metric: name, direction, meaning, and the function that computes it, named as text.

It computes nothing and imports no torch. What to do with the table: loupe/metric_specs.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

STANDARD_INCEPTION = "inception-2015-12-05"
DEMO_CLASSIFIER = "demo-classifier"
DEMO_CLIP = "demo-clip"
DEMO_LABEL = " (demo)"
DEMO_MEANING = " By the demo's own small network: comparable only inside this project."

LEAST_FOR_FRECHET = 256
"""Pictures. With 32 or 64 a Fréchet distance put a less diverse cloud before a nearer one nearly always, with 128 more
often than not, with 256 no more: few different pictures lower its bias. KID and CMMD were right throughout."""

Criterion = Literal["kid", "cmmd", "text", "clip_gap", "colour", "diversity", "background", "centring", "memorisation"]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric, i.e. one column of metrics/checkpoints.csv (with further columns, see `checkpoint_columns`)."""

    key: str
    label: str
    level: Literal["image", "set", "training"]
    """image: a mean of values per picture (also a column of per_image.csv); set: of all pictures together; training:
    of no picture, measured by `train`."""
    better: Literal["higher", "lower", "closer to real", "zero"]
    unit: str
    """'' for a pure number, 'share', 'points' ..."""
    extractor: Literal["inception", "clip", "pixels", "preference", "aesthetic", "training"]
    """The role of what it is computed with; inception: any network that gives features of pictures."""
    meaning: str
    """One sentence for a reader who has not met it."""
    compute: str
    """'package.module:function' (images, real); level image: -> float64 [N], NaN where a picture has no value; level
    set: -> float; '' for level training."""
    target: str | None = None
    """Field of evaluate.targets that speaks of this metric, or None."""
    extractor_name: str | None = None
    """The one extractor that this key is for; None: the first of its role that is standard (pixels need none)."""
    arrays: str | None = None
    """Prefix of the arrays in an image set that it looks at, see metric_specs.array_prefix; None: the role."""
    demo_only: bool = False
    """Whether only the demo's network can compute it."""
    needs_classes: bool = False
    """Whether it needs the extractor's class probabilities, not its features alone."""
    by_prompt: bool = False
    """Level image only: whether all pictures of a prompt have one value, of them together."""
    needs: str = "a valid picture"
    """Level image only: what a picture must have for a value, as the reason where none has one."""
    resamples: str | None = None
    """Level set only: 'package.module:function', (images, real, weights [R, N]) -> float64 [R], the value where image
    n weighs weights[r, n]."""
    pairs: str | None = None
    """Level set only, of a mean over pairs of images: 'package.module:function', (images, real) -> float64 [P, P], what
    the pictures of two prompts, in order of their first ones, add to the value together; 0 for those of one."""
    unbiased: bool = False
    """Level set only: whether its mean does not depend on the number of images."""
    least: float | None = None
    """Level set only: what no set of pictures scores less than; a share no more than 1."""
    image_column: str | None = None
    """Level image only: the column of metrics/per_image.csv that `key` is the mean of."""
    against_real: bool = False
    """Whether the value compares with the held-out real photos (a distance) or stands alone."""
    null: str | None = None
    """'package.module:function' (real, n_images) -> Null; None: the metric of random real train photos."""
    least_to_rank: int | None = None
    """Pictures below which it may order checkpoints the wrong way round; None: any number that it can be taken of."""
    ranks: bool = False
    """Whether pages name it first when they order checkpoints (one per set of extractors)."""
    criterion: Criterion | None = None
    """What `select` uses it for."""
    headline: bool = False
    """Whether it belongs in a table that has room for few."""


def _pair(
    key: str, demo_key: str, *, demo_label: str | None = None, published: str = "", **fields: Any
) -> tuple[MetricSpec, MetricSpec]:
    """Return the metric for standard extractors and the one for the demo's, which never bears a standard name.

    `published` says which published values the former may be compared with.
    """
    clip = fields["extractor"] == "clip"
    demo = {
        **fields,
        "label": f"{demo_label or fields['label']}{DEMO_LABEL}",
        "meaning": f"{fields['meaning']}{DEMO_MEANING}",
        "target": None,
    }
    standard = {**fields, "meaning": f"{fields['meaning']}{published}"}
    return (
        MetricSpec(key=key, extractor_name=None if clip else STANDARD_INCEPTION, **standard),
        MetricSpec(key=demo_key, extractor_name=DEMO_CLIP if clip else DEMO_CLASSIFIER, **demo),
    )


def _set(module: str, function: str, **fields: Any) -> dict[str, Any]:
    """Return the fields of a set metric: `<function>_score` and `<function>_resamples` of a module."""
    place = f"loupe.metrics.{module}:{function}"
    return {"level": "set", "compute": f"{place}_score", "resamples": f"{place}_resamples", **fields}


def _image(place: str, column: str, **fields: Any) -> dict[str, Any]:
    return {"level": "image", "compute": f"loupe.metrics.{place}", "image_column": column, **fields}


_DISTRIBUTION = (
    *_pair(
        "fid", "fd_demo", label="FID", demo_label="Fréchet distance", better="lower", unit="", extractor="inception",
        least=0.0, target="fid", against_real=True, headline=True, least_to_rank=LEAST_FOR_FRECHET,
        meaning="How far the pictures as a whole lie from the real photos; comparable only at the same number of "
        f"pictures. Below {LEAST_FOR_FRECHET} it ranks unreliably, because less diverse pictures lower its bias: go by "
        "the kernel distance (KID, CMMD).",
        **_set("frechet", "frechet"),
    ),
    *_pair(
        "kid", "kid_demo", label="KID × 1000", demo_label="Kernel distance × 1000", better="lower", unit="",
        extractor="inception", against_real=True, unbiased=True, criterion="kid",
        meaning="How far the pictures as a whole lie from the real photos, without FID's bias at few pictures; around "
        "0, on either side, there is no difference.",
        **_set("kernel_distance", "kid"), pairs="loupe.metrics.kernel_distance:kid_pairs",
    ),
    *_pair(
        "cmmd", "cmmd_demo", label="CMMD × 1000", better="lower", unit="", extractor="clip", against_real=True,
        unbiased=True, ranks=True, criterion="cmmd", headline=True,
        meaning="How far the pictures lie from the real photos as the text-image model sees them (unbiased form); "
        "around 0, on either side, there is no difference.",
        published=" Published CMMD is of ViT-L/14 at 336 px, in the biased form: values of another model do not "
        "compare with it.",
        **_set("kernel_distance", "cmmd"), pairs="loupe.metrics.kernel_distance:cmmd_pairs",
    ),
    *_pair(
        "precision", "precision_demo", label="Precision", better="higher", unit="share", extractor="inception",
        against_real=True,
        meaning="Share of the pictures that look like some real photo (5 nearest neighbours).",
        **_image("manifold:precision_of_images", "precision"),
    ),
    *_pair(
        "recall", "recall_demo", label="Recall", better="higher", unit="share", extractor="inception",
        against_real=True,
        least=0.0,
        meaning="Share of the real photos that the pictures surround (5 nearest neighbours).",
        **_set("manifold", "recall"),
    ),
    *_pair(
        "density", "density_demo", label="Density", better="closer to real", unit="", extractor="inception",
        against_real=True,
        meaning="How thickly real photos lie around the pictures; 1 for equal distributions, more when the pictures "
        "crowd where most photos are.",
        **_image("manifold:density_of_images", "density"),
    ),
    *_pair(
        "coverage", "coverage_demo", label="Coverage", better="higher", unit="share", extractor="inception",
        against_real=True,
        least=0.0,
        meaning="Share of the real photos that have a picture near them; its best value depends on the number of "
        "pictures, see its null.",
        **_set("manifold", "coverage"),
    ),
)  # fmt: skip

_TEXT_AND_COLOUR = (
    *_pair(
        "clip_score", "clip_demo", label="CLIP score", demo_label="Text-image score", better="higher", unit="points",
        extractor="clip", target="clip_score", criterion="text", headline=True,
        meaning="100 times the cosine between picture and prompt, as the named text-image model sees them.",
        published=" It compares with published scores of the same model alone (CLIPScore's paper: ViT-B/32, whose "
        "scores are 2.5 times the cosine).",
        **_image("clip_score:clip_scores", "clip"),
    ),
    *_pair(
        "clip_gap", "clip_gap_demo", label="CLIP gap", demo_label="Text-image gap", better="higher", unit="points",
        extractor="clip", criterion="clip_gap", headline=True, needs="prompts of at least 2 different wordings",
        meaning="The text-image score with the picture's own prompt minus that with the run's other prompts: what the "
        "picture owes to its prompt. It depends on which other prompts there are: real photos are chosen for it as "
        "captions are, as many as prompts and spread over the colours.",
        **_image("clip_score:clip_gaps", "clip_gap"),
    ),
    MetricSpec(
        key="colour_demo", label="Colour as asked (demo)", better="higher", unit="share", extractor="inception",
        extractor_name=DEMO_CLASSIFIER, demo_only=True, headline=True,
        needs="prompts that ask for a colour which the classifier knows",
        meaning="Share of the pictures in which the demo classifier sees the colour that the prompt asks for.",
        **_image("colour:colour_matches", "colour_ok"),
    ),
    MetricSpec(
        key="colour_ratio", label="Colour up to real", better="higher", unit="share", extractor="pixels",
        criterion="colour", headline=True, needs="prompts that ask for a colour, and train photos of one",
        meaning="How much of the asked colour the product of a prompt's pictures has, divided by what real photos of "
        "that colour have; 1 is as much as they or more, so that an evenly painted product gains nothing beyond.",
        by_prompt=True, **_image("colour:colour_ratios", "colour_ratio"),
    ),
    MetricSpec(
        key="colour_share", label="Colour by pixels", better="higher", unit="share", extractor="pixels",
        needs="prompts that ask for a colour",
        meaning="Share of the product's pixels in the colour family that the prompt asks for (CIELAB); shadows and "
        "highlights keep real photos below 1 too.",
        **_image("colour:colour_shares", "colour_share"),
    ),
    MetricSpec(
        key="colour_top2", label="Colour among the two largest", better="higher", unit="share", extractor="pixels",
        needs="prompts that ask for a colour",
        meaning="Share of the pictures whose asked colour family is one of the product's two largest.",
        **_image("colour:colour_in_top_two", "colour_top2"),
    ),
)  # fmt: skip

_COMPOSITION = (
    MetricSpec(
        key="background_ok", label="White background", better="higher", unit="share", extractor="pixels",
        criterion="background", headline=True,
        meaning="Share of the pictures whose 6 % border is as white as the real photos': at least 99 % of its pixels "
        "have R, G and B >= 240.",
        **_image("background:background_passes", "background_ok"),
    ),
    MetricSpec(
        key="centred_ok", label="Centred", better="higher", unit="share", extractor="pixels", criterion="centring",
        headline=True,
        meaning="Share of the pictures whose product keeps off the border and as near to the centre as in the real "
        "photos.",
        **_image("silhouette:centred", "centred_ok"),
    ),
    MetricSpec(
        key="single_object", label="Single object", better="closer to real", unit="share", extractor="pixels",
        meaning="Share of the pictures that show one connected thing on a white background.",
        **_image("silhouette:single_objects", "single_object"),
    ),
    MetricSpec(
        key="sharpness_pct", label="Sharpness percentile", better="closer to real", unit="", extractor="pixels",
        needs="a product in the picture and in a train photo",
        meaning="Mean share of the real train photos that are blurrier than a picture; 0.5 is as sharp as real.",
        **_image("silhouette:sharpness_percentiles", "sharpness_pct"),
    ),
)  # fmt: skip

_SPREAD = (
    *_pair(
        "memor_share", "memor_share_demo", label="Memorised", better="lower", unit="share", extractor="inception",
        null="loupe.metrics.memorisation:memorisation_null", criterion="memorisation", headline=True,
        meaning="Share of the pictures that lie nearer to a single training photo than all but 5 % of the held-out "
        "photos do.",
        **_image("memorisation:memorised_images", "memorised"),
    ),
    *_pair(
        "diversity_ratio", "diversity_ratio_demo", label="Diversity", better="closer to real", unit="",
        extractor="inception", criterion="diversity", headline=True,
        needs="at least 2 valid pictures of a prompt and 5 different train photos of the colour it asks for",
        meaning="How different the pictures of one prompt are, divided by how different real photos of that colour "
        "are; 1 is as diverse as real.",
        **_image("diversity:diversity_of_images", "diversity"),
    ),
    *_pair(
        "vendi", "vendi_demo", label="Vendi score", better="closer to real", unit="", extractor="inception",
        least=1.0,
        meaning="The effective number of different pictures; it grows with the number of pictures.",
        **_set("diversity", "vendi"),
    ),
    *_pair(
        "inception_score", "is_demo", label="Inception Score", better="closer to real", unit="", extractor="inception",
        least=1.0, target="inception_score", headline=True, needs_classes=True,
        meaning="Roughly how many classes the pictures cover with confidence; for one kind of product the value of the "
        "real photos is the aim, not a high one.",
        **_set("inception_score", "inception"),
    ),
)  # fmt: skip

RATER_SPECS = (
    MetricSpec(
        key="preference", label="Preference", better="higher", unit="points", extractor="preference", headline=True,
        meaning="100 times the cosine between picture and prompt in a model trained on people's choices; comparable "
        "for the same prompts only.",
        **_image("clip_score:clip_scores", "preference"),
    ),
    MetricSpec(
        key="aesthetic", label="Aesthetic", better="higher", unit="share", extractor="aesthetic", headline=True,
        meaning="Mean probability that a classifier of photographs gives to `aesthetic`; it judges taste, no product.",
        **_image("aesthetic:aesthetic_scores", "aesthetic"),
    ),
)  # fmt: skip
"""Of models that are optional; their keys always end in the model's name, see loupe/metric_specs.py."""

VALIDATION_LOSS = MetricSpec(
    key="val_loss", label="Validation loss", level="training", better="lower", unit="", extractor="training",
    headline=True, compute="",
    meaning="How badly the noise in the validation photos is predicted, at noise and timesteps that never change; "
    "where it rises again, training overfits. It judges no picture.",
)  # fmt: skip
"""Of no extractor: it stands beside the scores of the pictures, see overfitting.read_validation_losses."""

METRIC_SPECS: dict[str, MetricSpec] = {
    spec.key: spec for spec in (*_DISTRIBUTION, *_TEXT_AND_COLOUR, *_COMPOSITION, *_SPREAD)
}
