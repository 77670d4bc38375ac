"""The typed artefacts that stages hand to each other on disk. It holds shapes only, no behaviour beyond look-ups.

Every manifest is written last in its folder: until it exists, the stage is not done. Files are named relative to the
folder of the manifest, never by absolute path. A manifest holds nothing that depends on how the work was done (times,
how much was reused): the same result must give the same bytes, or every later stage would run again for nothing.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Split = Literal["train", "val", "test"]
BASE_STEP = 0


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CaptionRecord(_Record):
    """One example: a line of data/dataset/<split>/captions.jsonl, in the order of image_id."""

    image_id: str
    split: Split
    file: str
    """Relative to data/dataset, e.g. train/images/15970.png."""
    caption: str
    sha256: str
    """Of the prepared PNG's bytes."""
    source_width_px: int
    source_height_px: int
    attributes: dict[str, str]
    """Non-empty values among article_type, colour, gender, season, usage, year, brand, family."""


class MalformedRow(_Record):
    """A row of styles.csv with more or fewer cells than its header."""

    line: int
    n_cells: int
    image_id: str
    action: Literal["repaired", "skipped"]


class Rejection(_Record):
    """A photo that cannot be used, and why."""

    image_id: str
    reason: str
    """corrupt | truncated | empty file | animated | extreme shape | duplicate | empty caption ..."""
    detail: str


class Finding(_Record):
    """Something a person should know before training; nothing is excluded for it."""

    kind: str
    """near-duplicate | near-duplicate across splits | enlarged | long caption ..."""
    image_ids: tuple[str, ...]
    detail: str


class DatasetManifest(_Record):
    """data/dataset/manifest.json."""

    source: str
    resolution_px: int
    seed: int
    n_rows: int
    """Rows or files of the source before any filter."""
    n_selected: int
    """Rows of the chosen article type (all files for the other sources)."""
    n_missing: int
    """Selected rows whose photo is not there."""
    missing_ids: tuple[str, ...]
    n_examples: dict[Split, int]
    malformed_rows: tuple[MalformedRow, ...]
    rejected: tuple[Rejection, ...]
    findings: tuple[Finding, ...]
    attribute_counts: dict[str, dict[str, int]]
    """attribute -> value -> number of examples over all splits."""
    captions_sha256: dict[Split, str]
    """Of each captions.jsonl, which holds the image hashes: together they identify the dataset."""


class BaseModelInfo(_Record):
    """Which base model it was, so that a reader can tell whether two artefacts belong together."""

    name: str
    """As in params.yaml."""
    revision: str | None
    sha256: str
    """Over the weight and config files."""
    prediction_type: str
    latent_channels: int
    scaling_factor: float
    sample_size_px: int
    """Side of the square picture that the base model was made for."""


class LatentsManifest(_Record):
    """data/latents/manifest.json.

    data/latents/<split>.safetensors (train and val; test is never encoded) holds `mean` and `std` [N, C, H, W] float32
    of the VAE's posterior (unscaled), row i for image_ids[split][i], `caption_index` [N] int64 into the rows of
    data/latents/text.safetensors: `embeddings` [U, T, D] float32, row 0 the empty caption. tokens.safetensors holds
    the same captions as `token_ids` [U, T] int64. With train.random_flip the train file also holds `mirrored_mean` and
    `mirrored_std`, of the photos mirrored left to right.
    """

    base_model: BaseModelInfo
    dtype: str
    resolution_px: int
    image_ids: dict[str, tuple[str, ...]]
    """split -> image ids in row order."""
    captions_sha256: dict[Split, str]
    """Copied from the dataset manifest: the data that was encoded."""
    files: dict[str, str]
    """File name -> SHA-256."""


class CheckpointInfo(_Record):
    """One adapter: data/checkpoints/step-N/ holds adapter_model.safetensors, adapter_config.json, checkpoint.json.

    When the text encoder was trained too, its adapter is in the folder text_encoder/ there, in the same form and of the
    same rank, alpha and kind.
    """

    step: int
    folder: str
    sha256: str
    """Of adapter_model.safetensors."""
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    use_dora: bool = False
    use_rslora: bool = False
    text_encoder_sha256: str | None = Field(default=None, exclude_if=lambda sha256: sha256 is None)
    """Of text_encoder/adapter_model.safetensors; absent when only the UNet was trained."""
    train_loss: float
    """Exponential moving average of the loss at this step; it mixes random timesteps and measures no quality."""


class CheckpointsManifest(_Record):
    """data/checkpoints/manifest.json: the one list of checkpoints, ascending by step, without the base model."""

    base_model: BaseModelInfo
    fingerprint: str
    """Of everything that decided the weights, max_steps aside."""
    checkpoints: tuple[CheckpointInfo, ...]
    effective_batch_size: int
    device: str
    dtype: str
    library_versions: dict[str, str]
    files: dict[str, str] = {}
    """File name -> SHA-256: validation.safetensors, see loupe/diffusion/validation_files.py."""


class TrainRow(_Record):
    """One row of metrics/train.csv."""

    step: int
    loss: float
    loss_smoothed: float
    learning_rate: float
    """Of the UNet's adapter; that of a trained text encoder keeps its proportion to it."""
    grad_norm: float
    """Global L2 norm before clipping."""


class PromptRecord(_Record):
    """One prompt of a run."""

    prompt_id: str
    """Key in params.yaml, or val_<image id> / test_<image id> for a caption."""
    text: str
    colour: str | None
    """Colour the prompt asks for, where that is known: for the colour score."""


class SampleRecord(_Record):
    """One generated image."""

    prompt_id: str
    seed_index: int
    seed: int
    step: int
    file: str | None
    """Relative to the manifest's folder: <prompt id>-<seed index>/<step>.png; None when there is no picture."""
    sha256: str | None
    invalid_reason: str | None
    """None, or: not finite | black | flat | wrong size."""


class SamplesManifest(_Record):
    """data/samples/manifest.json and data/confirmation/manifest.json."""

    base_model: BaseModelInfo
    checkpoints_fingerprint: str
    steps: tuple[int, ...]
    """Ascending; 0 is the base model without adapter."""
    prompts: tuple[PromptRecord, ...]
    seeds_per_prompt: int
    samples: tuple[SampleRecord, ...]
    """Ordered by prompt (as in prompts), seed index, step."""
    width_px: int
    height_px: int
    guidance_scale: float
    num_inference_steps: int
    negative_prompt: str
    sampler: str


class ExportedFile(_Record):
    """One file to take away."""

    file: str
    format: Literal["diffusers", "kohya", "pipeline", "model card"]
    sha256: str


class ExportManifest(_Record):
    """data/export/manifest.json."""

    step: int
    base_model: BaseModelInfo
    rank: int
    alpha: float
    trigger: str
    files: tuple[ExportedFile, ...]
