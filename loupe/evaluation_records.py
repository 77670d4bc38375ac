"""The typed artefacts of reference, evaluate and select. Shapes only; the rules of loupe/records.py hold here too."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ExtractorInfo(_Record):
    """What turned pixels into features; every score names it."""

    name: str
    """E.g. inception-2015-12-05, demo-classifier, ViT-B-32-quickgelu/openai, demo-clip, dinov2-base."""
    role: Literal["inception", "features", "clip", "preference", "aesthetic"]
    """inception: features and classes of pictures; features: features alone; clip: pictures and texts."""
    kind: Literal["standard", "domain_trained", "custom"]
    """standard: known weights, byte for byte; custom: a file of one's own, whose name then holds its hash."""
    sha256: str
    """Of its weights."""
    resize: str
    """How an image becomes its input, e.g. 'bilinear antialiased to 64 px'."""


class Null(_Record):
    """Distribution of a score when there is no difference to find: real against real at the N that is used."""

    mean: float
    lo: float
    hi: float
    """2.5th and 97.5th percentile over the draws."""
    n_a: int
    """Pictures: real train photos in each draw, fewer than a checkpoint has where there are not enough of them."""
    n_b: int
    """Real photos that they are compared with; 0 where the score compares with nothing (Inception Score)."""
    n_draws: int
    """0 where the distribution is known without drawing."""


class RealScore(_Record):
    """What real photos score, with how many of them."""

    value: float
    n: int
    """Photos that it is of; a score of a whole set depends on them."""


class PhotoDraws(_Record):
    """How nulls and the photos' own scores were drawn: enough to draw them again."""

    n_generated: int = Field(ge=1)
    """Pictures of each checkpoint."""
    n_prompts: int = Field(ge=1)
    n_draws: int = Field(ge=1)
    seed: int = Field(ge=0)
    stream: int = Field(ge=0)
    """Of random numbers, for the nulls; the photos' own scores have the next one."""


class ReferenceManifest(_Record):
    """data/reference/manifest.json, beside <split>-<role>.safetensors with the features of the real images."""

    extractors: tuple[ExtractorInfo, ...]
    n_real: dict[str, int]
    """split -> number of real images."""
    nulls: dict[str, Null]
    """Metric key -> null."""
    real_scores: dict[str, RealScore]
    """Metric key -> value of the real val images where one exists (CLIP score of photo and caption, ...)."""
    photo_draws: PhotoDraws | None = None
    left_out: dict[str, str] = {}
    """Entry of evaluate.extractors -> why nothing was measured with it."""
    surroundings: dict[str, str] = {}
    """Extractor -> hash of its settings files and the versions of its libraries."""
    files: dict[str, str]


class EvaluationManifest(_Record):
    """data/evaluation/manifest.json: the provenance of metrics/*.csv and metrics/summary.json."""

    extractors: tuple[ExtractorInfo, ...]
    metric_keys: tuple[str, ...]
    """Columns of checkpoints.csv that are scores of pictures, in the order of loupe/metric_table.py."""
    nulls: dict[str, Null]
    real_scores: dict[str, RealScore]
    photo_draws: PhotoDraws | None = None
    """Of nulls and real_scores."""
    controls: dict[str, dict[str, float]] = {}
    """Noise, blank white, shuffled captions -> metric key -> what they score: what any score must be read against."""
    n_real: int
    samples_sha256: str
    """Of data/samples/manifest.json."""
    reference_sha256: str
    """Of data/reference/manifest.json."""
    targets: dict[str, float]
    """Metric key -> target of params.yaml, for the extractors it was meant for."""
    unmeasured_targets: dict[str, float] = {}
    """Field of evaluate.targets -> target that speaks of none of this run's scores."""
    best_steps: dict[str, int] = {}
    """Metric key -> the checkpoint (not the base model) that is best in it: what `_diff_best` is the difference to."""
    absent: dict[str, str] = {}
    """step-N/<metric key> -> why checkpoints.csv has no value there; with `_interval` behind it, why no interval."""
    unreadable: dict[str, str] = {}
    """Picture -> why it cannot be looked at: counted as invalid here, though data/samples knows nothing of it."""
    left_out: dict[str, str] = {}
    """Entry of evaluate.extractors -> why no score is by it."""
    findings: tuple[str, ...] = ()
    """What a reader of the scores should know: prompts that the text tower cuts, too few prompts for intervals ..."""
    library_versions: dict[str, str]
    files: dict[str, str]


class TestLook(_Record):
    """One line of .work/test-looks.jsonl: a look at the test split."""

    __test__ = False  # no test, whatever pytest takes the name for

    at: str
    """ISO 8601, UTC."""
    test_sha256: str
    """Of the test split's captions file."""
    choice: str
    """Fingerprint of what was looked at: the pictures of both sides, and what measured them."""
    step: int


class Standing(_Record):
    """How one checkpoint stands; a number that could not be computed is absent."""

    merit: float
    """Weighted sum of its gains over base, each in units of its uncertainty."""
    to_best: float | None = None
    """Its merit minus the best one's, paired by prompt, with its 95 % interval."""
    to_best_lo: float | None = None
    to_best_hi: float | None = None
    p_base: float | None = None
    """Of its merit being that of base, after Holm's correction over the checkpoints."""
    p_best: float | None = None
    """Of its merit being the best one's, after Holm's correction over its rivals; from 0.05 on it is tied."""


class Selection(_Record):
    """metrics/selection.json."""

    verdict: Literal["selected", "no clear winner"]
    step: int
    """The recommended checkpoint; with no clear winner, the one that export takes (named as such in the reason)."""
    reason: str
    """A plain-language paragraph."""
    gates_failed: dict[str, str]
    """step-N -> the gates it failed."""
    tied_steps: tuple[int, ...]
    """Steps that cannot be told from the best."""
    criteria: dict[str, str] = {}
    """distance | clip_gap | colour | diversity -> the metric that stood for it."""
    front_steps: tuple[int, ...] = ()
    """Steps that no other eligible one beats or equals on every criterion."""
    standings: dict[str, Standing] = {}
    """step-N -> how it stands by the criteria together."""
