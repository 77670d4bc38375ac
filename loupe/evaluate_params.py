"""The sections `evaluate:` and `select:` of params.yaml: what measures the pictures, and how a checkpoint is chosen.

Like the rest of params.yaml they have no defaults. Whether an extractor is there is found by the stage, not here.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from loupe.param_types import Float, Int, PositiveInt, Section, Share


class TargetParams(Section):
    """Targets to show beside the scores. They never turn a cell green by themselves."""

    fid: Float = Field(gt=0)
    """FID below this was asked for."""
    clip_score: Float = Field(gt=0)
    """CLIP score above this was asked for."""
    inception_score: Float = Field(gt=0)
    """Inception Score above this was asked for."""
    train_loss: Float = Field(gt=0)
    """Smoothed training loss below this was asked for."""


class EvaluateParams(Section):
    """What measures the pictures."""

    extractors: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    """Networks that measure, each with columns of its own: demo (our small classifier; fd_demo, is_demo), demo-clip
    (our small open_clip model; clip_demo), inception (Inception-2015-12-05; fid) or inception:<path of its file>,
    <open_clip architecture>/<pretrained tag or local safetensors file> (<file>.safetensors@<tag> where its tags differ
    in their settings), dinov2, preference:<Hub id or folder>, aesthetic:<Hub id or folder>. `select` looks at the
    first of pictures and the first of pictures and texts."""
    batch_size: PositiveInt
    """Images that are read together for an extractor, which takes 8 at a time on a CPU and 32 on a GPU: multiples of
    that leave none of them empty."""
    null_draws: Int = Field(ge=2)
    """Random subsets of the train photos, each scored against val: the real-against-real null."""
    bootstrap_draws: Int = Field(ge=100)
    """Resamples of the prompts for every interval."""
    targets: TargetParams
    """Targets to show beside the scores."""

    @model_validator(mode="before")
    @classmethod
    def _two_names_as_a_list(cls, section: Any) -> Any:
        """Take `inception` and `clip`, the two fields of earlier files, as a list of two."""
        if not isinstance(section, dict) or "extractors" in section or not {"inception", "clip"} <= section.keys():
            return section
        rest = {key: value for key, value in section.items() if key not in ("inception", "clip")}
        pictures, texts = section["inception"], section["clip"]
        of_pictures = {"demo": "demo", "standard": "inception"}.get(pictures, f"inception:{pictures}")
        return {**rest, "extractors": [of_pictures, "demo-clip" if texts == "demo" else texts]}

    @field_validator("extractors")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"each extractor once (got {', '.join(twice)} more than once)")
        return names


class WeightParams(Section):
    """How much each criterion counts; each is a gain over the base model in units of its own uncertainty."""

    distance: Float = Field(ge=0)
    """Nearness to the real photos, by select.distance."""
    clip_gap: Float = Field(ge=0)
    """What a picture owes to its prompt."""
    colour: Float = Field(ge=0)
    """Colour as asked, by pixels; more than that of real photos counts no further."""
    diversity: Float = Field(ge=0)
    """Diversity within a prompt; more than that of real photos counts no further."""

    @model_validator(mode="after")
    def _counts_something(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("at least one weight must be greater than 0")
        return self


class SelectParams(Section):
    """How a checkpoint is recommended; fixed before the run."""

    min_background_ok: Share
    """Gate: at least this share of the pictures must have a border as white as the real photos'."""
    min_centred_ok: Share
    """Gate: at least this share of the pictures must show the product as centred as the real photos do."""
    max_invalid: Int = Field(ge=0)
    """Gate: at most this many pictures may be invalid (not finite, black, flat, wrong size)."""
    max_text_loss: Float | None = Field(gt=0)
    """Gate: fails when clearly more points of the text-image score (100 x cosine) than this are lost against the base
    model; null: no such gate. A LoRA usually loses a little."""
    memorisation_level: Float = Field(gt=0, lt=0.5)
    """Gate: fails when so many pictures near a training photo come by chance with at most this probability."""
    distance: str = Field(pattern=r"^(kid|cmmd)(_[a-z0-9_]+)?$")
    """Which distance from the real photos counts: kid (features of the first network of pictures), cmmd (of the first
    of pictures and texts), or the column of another one, e.g. kid_dinov2_base."""
    weights: WeightParams
    """How much each criterion counts."""
