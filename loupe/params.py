"""params.yaml as frozen objects, read and checked in one place.

Unknown keys are refused with the nearest known name, all problems are reported at once, and nothing that changes a
result has a default here: the file is complete, so its diff shows every choice. Configuration stops at a stage's main;
below it functions receive numbers, strings and arrays.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from loupe.errors import PipelineError, nearest_names, problems_message
from loupe.evaluate_params import EvaluateParams, SelectParams
from loupe.param_types import Float, Int, PositiveInt, Section, Share
from loupe.train_params import TrainParams
from loupe.yaml_file import read_yaml

PROMPT_ID = re.compile(r"[a-z0-9][a-z0-9_]*")


class ModelParams(Section):
    """Which base model is fine-tuned."""

    base: str = Field(min_length=1)
    """`demo` (our own small one), a diffusers folder on disk, or a Hub id, e.g.
    stable-diffusion-v1-5/stable-diffusion-v1-5."""
    revision: str | None
    """Full commit hash of the Hub id; null for a folder and for `demo`."""


class SplitParams(Section):
    """How examples are shared out."""

    train: Share
    """Share of the examples that the adapter is trained on."""
    val: Share
    """Share that checkpoints are compared on."""
    test: Share
    """Share that only `confirm` reads."""
    stratify_by: Literal["none", "colour", "gender", "season"]
    """Attribute whose distribution is kept the same in every split."""
    rare_below: Int = Field(ge=2)
    """Values with fewer rows than this are grouped into Other before stratifying."""
    group_families: bool
    """Keep all colour variants of one product in the same split."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1 (got {total:g})")
        if min(self.train, self.val, self.test) <= 0:
            raise ValueError("train, val and test must each be greater than 0")
        return self


class DataParams(Section):
    """Where examples come from and how they are prepared."""

    source: Literal["demo", "kaggle-fashion", "pairs", "captions-json"]
    """demo: rendered by our own code; kaggle-fashion: styles.csv + images/<id>.jpg; pairs: NNN.png|jpg|jpeg + NNN.txt;
    captions-json: images/ + captions.json."""
    root: str = Field(min_length=1)
    """Folder of the source. For `demo` it is the code that renders, so that an edit there prepares anew."""
    article_type: str = Field(min_length=1)
    """Value of the articleType column to keep (demo and kaggle-fashion)."""
    malformed_rows: Literal["repair", "skip"]
    """What to do with rows of styles.csv that hold an unquoted comma in the last column."""
    max_examples: PositiveInt | None
    """Use at most this many examples, drawn by `seed`; null uses all."""
    resolution: PositiveInt
    """Side of the square training image, px; a multiple of 8."""
    caption_template: str = Field(min_length=1)
    """Caption of a catalogue row; a clause (between commas) whose field is missing is dropped."""
    demo_items: PositiveInt
    """Number of products that the `demo` source renders, of all article types together."""
    split: SplitParams
    """How examples are shared out over train, val and test."""
    near_duplicate_bits: Int = Field(ge=0, le=32)
    """Two photos whose 64-bit perceptual hashes differ in at most this many bits are reported as near-duplicates."""
    max_rejected_share: Share
    """The stage stops when more than this share of the photos that are present cannot be used."""

    @field_validator("resolution")
    @classmethod
    def _multiple_of_eight(cls, value: int) -> int:
        if value % 8 or value < 64:
            raise ValueError(f"must be a multiple of 8 and at least 64 (got {value}), because the VAE downsamples by 8")
        return value


class GenerateParams(Section):
    """Which pictures every checkpoint draws."""

    prompts: dict[str, str]
    """Fixed prompts: id -> text. Ids are lower-case letters, digits and underscores; they name folders."""
    val_captions: Int = Field(ge=0)
    """This many captions of the val split are prompts as well."""
    seeds_per_prompt: Int = Field(gt=0, le=1000)
    """Pictures per prompt and checkpoint, each from its own seed, the same for all checkpoints."""
    negative_prompt: str
    """Text that guidance steers away from; empty for none."""
    guidance_scale: Float = Field(ge=1)
    """Classifier-free guidance; 1 switches it off."""
    num_inference_steps: Int = Field(gt=0, le=1000)
    """Sampler steps (DPM-Solver++, second order)."""
    batch_size: PositiveInt
    """Pictures denoised together on a GPU, fewer where its memory does not hold as many; it decides the last bits. On
    the CPU it is always 8."""

    @field_validator("prompts")
    @classmethod
    def _ids_name_folders(cls, prompts: dict[str, str]) -> dict[str, str]:
        if bad := [key for key in prompts if not PROMPT_ID.fullmatch(key) or key.startswith(("val_", "test_"))]:
            raise ValueError(f"ids must be lower-case letters, digits and _, not starting val_ or test_ (got {bad})")
        if empty := [key for key, text in prompts.items() if not text.strip()]:
            raise ValueError(f"empty prompts: {empty}")
        return prompts

    @model_validator(mode="after")
    def _draws_something(self) -> Self:
        if not self.prompts and not self.val_captions:
            raise ValueError("there is no prompt: add to prompts, or set val_captions above 0")
        return self


class ConfirmParams(Section):
    """The one look at the test split."""

    test_captions: PositiveInt
    """This many captions of the test split are prompts."""
    seeds_per_prompt: PositiveInt
    """Pictures per prompt, from seeds that no other stage uses."""


class ExportParams(Section):
    """What is taken away."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """File name of the exported LoRA, without suffix."""
    trigger: str
    """Words that call the adapter, written into the files and the model card."""
    full_pipeline: bool
    """Also write the base model with the adapter merged in, as a diffusers folder."""


class Params(Section):
    """A whole params.yaml; each section is named after the stage that it belongs to."""

    seed: Int = Field(ge=0, lt=2**32)
    """Root of every random draw."""
    model: ModelParams
    """Base model."""
    data: DataParams
    """Stage prepare."""
    train: TrainParams
    """Stage train."""
    generate: GenerateParams
    """Stage generate."""
    evaluate: EvaluateParams
    """Stages reference and evaluate."""
    select: SelectParams
    """Stage select."""
    confirm: ConfirmParams
    """Stage confirm."""
    export: ExportParams
    """Stage export."""


def checkpoint_steps(max_steps: int, checkpoint_every: int) -> tuple[int, ...]:
    """Return the steps at which a checkpoint is kept, ascending; the last is always max_steps.

    The one list of checkpoints: every other stage takes it from the checkpoints' manifest.
    """
    regular = range(checkpoint_every, max_steps, checkpoint_every)
    return (*regular, max_steps)


def load_params(path: Path) -> Params:
    """Read and check a parameter file; every problem of the file is named in one PipelineError."""
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise PipelineError(f"{path} must hold sections such as `train:`; found {type(document).__name__}.")
    return checked_params(document, source=path.name)


def checked_params(document: Any, *, source: str) -> Params:
    """Return a parsed document as parameters; every problem is named in one PipelineError that begins with `source`."""
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        problems = [_problem(item) for item in error.errors()]
        raise PipelineError(problems_message(source, problems)) from None


def _problem(item: Any) -> str:
    location = ".".join(str(part) for part in item["loc"]) or "params"
    if item["type"] == "extra_forbidden":
        known = _known_keys(item["loc"][:-1])
        nearest = nearest_names(str(item["loc"][-1]), known, limit=1)
        prefix = location.rpartition(".")[0]
        if not nearest:
            return f"{location}: unknown key; known: {', '.join(known)}"
        return f"{location}: unknown key; did you mean {f'{prefix}.' if prefix else ''}{nearest[0]}?"
    if item["type"] == "missing":
        return f"{location}: missing; profiles/ holds complete files to copy it from"
    if item["type"] == "value_error":
        return f"{location}: {item['msg'].removeprefix('Value error, ')}"
    message = item["msg"].replace("Input should be", "must be", 1)
    return f"{location}: {message} (got {item['input']!r})"


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Params
    for part in location:
        model = model.model_fields[part].annotation  # type: ignore[assignment]
    return list(model.model_fields)
