"""The folder of one checkpoint: the adapter in PEFT form and what it is. It holds nothing needed to go on training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loupe.atomic_io import sha256_file, write_record
from loupe.diffusion.adapter import WEIGHTS_FILE, AdapterConfig, save_adapter
from loupe.paths import step_name
from loupe.records import CheckpointInfo

if TYPE_CHECKING:
    from loupe.diffusion.training import TrainingState

INFO_FILE = "checkpoint.json"


def write_checkpoint(checkpoints: Path, state: TrainingState, adapter: AdapterConfig) -> CheckpointInfo:
    """Write `step-N/` under `checkpoints` for this state, its checkpoint.json last, and return what that holds."""
    name = step_name(state.step)
    save_adapter(
        checkpoints / name,
        state.adapter,
        rank=adapter.rank,
        alpha=adapter.alpha,
        target_modules=adapter.target_modules,
        base_model=adapter.base_model,
    )
    info = CheckpointInfo(
        step=state.step,
        folder=name,
        sha256=sha256_file(checkpoints / name / WEIGHTS_FILE),
        rank=adapter.rank,
        alpha=adapter.alpha,
        target_modules=adapter.target_modules,
        train_loss=state.rows[-1].loss_smoothed,
    )
    write_record(checkpoints / name / INFO_FILE, info)
    return info
