"""Checkpoints of made-up adapters on the tiny base model, without any training."""

from pathlib import Path

import torch

from loupe.atomic_io import sha256_file
from loupe.diffusion.adapter import WEIGHTS_FILE, AdapterConfig, AdapterState, adapter_state, add_adapter, save_adapter
from loupe.diffusion.base_model import base_model_info, load_unet
from loupe.diffusion.sample_plan import AdapterSource
from loupe.paths import step_name
from loupe.records import CheckpointInfo, CheckpointsManifest

RANK, ALPHA = 2, 8.0
TARGETS = ("to_q", "to_v", "to_out.0", "proj_in")


def made_up_adapter(base: Path, *, seed: int) -> AdapterState:
    """A state that visibly changes the tiny UNet: A as drawn by add_adapter, B random instead of zero."""
    unet = load_unet(base, device="cpu", dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    add_adapter(unet, rank=RANK, alpha=ALPHA, target_modules=TARGETS, generator=generator)
    return {
        key: tensor if "lora_A" in key else 0.3 * torch.randn(tensor.shape, generator=generator)
        for key, tensor in adapter_state(unet).items()
    }


def write_checkpoint(folder: Path, step: int, state: AdapterState, *, alpha: float = ALPHA) -> CheckpointInfo:
    name = step_name(step)
    save_adapter(folder / name, state, AdapterConfig(RANK, alpha, TARGETS, "tiny"))
    return CheckpointInfo(
        step=step,
        folder=name,
        sha256=sha256_file(folder / name / WEIGHTS_FILE),
        rank=RANK,
        alpha=alpha,
        target_modules=TARGETS,
        train_loss=0.1,
    )


def write_checkpoints(folder: Path, base: Path, steps: tuple[int, ...]) -> AdapterSource:
    infos = tuple(write_checkpoint(folder, step, made_up_adapter(base, seed=step)) for step in steps)
    info = base_model_info(base, name="tiny", revision=None)
    manifest = CheckpointsManifest(
        base_model=info,
        fingerprint="f" * 64,
        checkpoints=infos,
        effective_batch_size=1,
        device="cpu",
        dtype="float32",
        library_versions={},
    )
    return AdapterSource(base_folder=base, base_model=info, checkpoints_folder=folder, checkpoints=manifest)
