"""What a training run leaves beside its list of checkpoints: rows of three CSV files, and what each checkpoint is.

The curves of validation are results and the same bytes every time; the telemetry is of one machine and moment, and is
therefore no artefact of the pipeline. Shapes only, no behaviour.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from loupe.records import BaseModelInfo, CheckpointInfo


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ValidationRow(_Row):
    """One row of metrics/validation.csv: a checkpoint (step 0: the base model) on all val images."""

    step: int
    val_loss: float
    """Mean squared error of the predicted noise (or velocity) over images and timesteps; lower is better."""
    val_loss_diff_base: float | None
    """Mean over the images of this checkpoint's loss minus the base model's on the same noise; None for the base."""
    val_loss_diff_base_lo: float | None
    """95 % interval of that difference, Student's t over the images; None for the base, and with a single image."""
    val_loss_diff_base_hi: float | None
    n_images: int


class ValidationTimestepRow(_Row):
    """One row of metrics/validation_timesteps.csv: the mean over all val images at one of the fixed timesteps."""

    step: int
    timestep: int
    loss: float


class TelemetryRow(_Row):
    """One row of .work/train-telemetry.csv, written every few seconds while a process trains."""

    step: int
    images_per_s: float
    """Since the row before, over the time spent on training steps alone."""
    elapsed_s: float
    """Since this process began to train; a resumed run starts again at 0."""
    peak_memory_gb: float | None
    """Highest so far, 1e9 bytes: of the GPU's tensors on CUDA, of the process on the CPU; None where unknown."""


class CheckpointDescription(CheckpointInfo):
    """checkpoint.json of data/checkpoints/step-N/: what the adapter is, for a reader who has that folder alone."""

    loss: float
    """Of this step alone."""
    base_model: BaseModelInfo
    run_fingerprint: str
    """Of everything that decided the weights, max_steps aside."""
    examples_sha256: str
    """Of the encoded photos and captions that it was trained on."""
    captions_sha256: str
    """Of the file data/dataset/train/captions.jsonl that it was trained on, which holds each photo's own SHA-256."""
    settings: dict[str, int | float | str | bool | tuple[float, ...] | None]
    """Numbers that decided the weights beside the above: seed, learning rate ..."""
    effective_batch_size: int
    device: str
    dtype: str
    library_versions: dict[str, str]
