"""The folder of one checkpoint: the adapter in PEFT form and what it is. It holds nothing needed to go on training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loupe.atomic_io import read_record, sha256_file, write_record
from loupe.diffusion.adapter import WEIGHTS_FILE, AdapterConfig
from loupe.diffusion.text_adapter import TEXT_FOLDER, save_adapters, split_state
from loupe.paths import step_name
from loupe.records import BaseModelInfo, CheckpointInfo, LatentsManifest
from loupe.train_records import CheckpointDescription
from loupe.workstore import fingerprint

if TYPE_CHECKING:
    from loupe.diffusion.training import TrainingState

INFO_FILE = "checkpoint.json"


@dataclass(frozen=True, slots=True)
class CheckpointOrigin:
    """Where the checkpoints of one run come from: the adapter's configuration, the base model, and `parts`.

    `parts` is what train_run.run_parts says decides the weights.
    """

    adapter: AdapterConfig
    base_model: BaseModelInfo
    parts: dict[str, Any]
    effective_batch_size: int
    captions_sha256: str
    """Of data/dataset/train/captions.jsonl."""


def captions_sha256(latents: Path) -> str:
    """Return the SHA-256 of the captions file whose photos are encoded in the folder data/latents for training."""
    return read_record(latents / "manifest.json", LatentsManifest, made_by="encode").captions_sha256["train"]


def write_checkpoint(checkpoints: Path, state: TrainingState, origin: CheckpointOrigin) -> CheckpointInfo:
    """Write `step-N/` under `checkpoints` for this state, its checkpoint.json last, and return what to list of it."""
    name = step_name(state.step)
    adapter, parts = origin.adapter, origin.parts
    save_adapters(checkpoints / name, state.checkpoint_adapter, adapter)
    trains_text_encoder = bool(split_state(state.checkpoint_adapter)[1])
    of_text = checkpoints / name / TEXT_FOLDER / WEIGHTS_FILE
    info = CheckpointInfo(
        step=state.step,
        folder=name,
        sha256=sha256_file(checkpoints / name / WEIGHTS_FILE),
        rank=adapter.rank,
        alpha=adapter.alpha,
        target_modules=adapter.target_modules,
        use_dora=adapter.use_dora,
        use_rslora=adapter.use_rslora,
        text_encoder_sha256=sha256_file(of_text) if trains_text_encoder else None,
        train_loss=state.rows[-1].loss_smoothed,
    )
    description = CheckpointDescription(
        **info.model_dump(),
        loss=state.rows[-1].loss,
        base_model=origin.base_model,
        run_fingerprint=fingerprint(parts),
        examples_sha256=parts["examples"],
        captions_sha256=origin.captions_sha256,
        settings=parts["train"],
        effective_batch_size=origin.effective_batch_size,
        device=parts["device"],
        dtype=parts["dtype"],
        library_versions=parts["versions"],
    )
    write_record(checkpoints / name / INFO_FILE, description)
    return info
