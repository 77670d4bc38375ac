"""Checkpoints of made-up adapters on the tiny base model, without any training."""

from pathlib import Path

import torch

from loupe.atomic_io import sha256_file
from loupe.diffusion.adapter import WEIGHTS_FILE, AdapterConfig, AdapterState, adapter_state, add_adapter
from loupe.diffusion.base_model import base_model_info
from loupe.diffusion.model_loading import load_text_encoder, load_unet
from loupe.diffusion.sample_plan import AdapterSource
from loupe.diffusion.text_adapter import TEXT_FOLDER, add_text_adapter, save_adapters
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


def made_up_text_adapter(base: Path, *, seed: int, use_dora: bool = False) -> AdapterState:
    """A state that visibly changes the tiny text encoder."""
    text_encoder = load_text_encoder(base, device="cpu", dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    config = AdapterConfig(RANK, ALPHA, TARGETS, "tiny", use_dora=use_dora)
    add_text_adapter(text_encoder, config, generator=generator)
    return {
        key: tensor if "lora_A" in key else tensor + 0.3 * torch.randn(tensor.shape, generator=generator)
        for key, tensor in adapter_state(text_encoder).items()
    }


def write_checkpoint(
    folder: Path, step: int, state: AdapterState, *, alpha: float = ALPHA, of_text: AdapterState | None = None
) -> CheckpointInfo:
    name = step_name(step)
    text_keys = {f"{TEXT_FOLDER}.{key}": tensor for key, tensor in (of_text or {}).items()}
    save_adapters(folder / name, state | text_keys, AdapterConfig(RANK, alpha, TARGETS, "tiny"))
    return CheckpointInfo(
        step=step,
        folder=name,
        sha256=sha256_file(folder / name / WEIGHTS_FILE),
        rank=RANK,
        alpha=alpha,
        target_modules=TARGETS,
        text_encoder_sha256=sha256_file(folder / name / TEXT_FOLDER / WEIGHTS_FILE) if of_text else None,
        train_loss=0.1,
    )


def write_checkpoints(folder: Path, base: Path, steps: tuple[int, ...], *, with_text: bool = False) -> AdapterSource:
    infos = tuple(
        write_checkpoint(
            folder,
            step,
            made_up_adapter(base, seed=step),
            of_text=made_up_text_adapter(base, seed=step) if with_text else None,
        )
        for step in steps
    )
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
