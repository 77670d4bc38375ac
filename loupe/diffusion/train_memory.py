"""Before training: whether activations are recomputed in the backward pass, and what to say about memory.

It counts with cost_model.py on the base model and latents that are there, and asks the device what is free. It refuses
nothing: an estimate can be wrong, and `loupe check` is where go or no-go is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loupe.diffusion.adapter import AdapterConfig
from loupe.diffusion.cost_model import UNetCost, unet_cost
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.latent_files import Examples
from loupe.diffusion.memory import (
    Checkpointing,
    TrainingSetting,
    available_bytes,
    memory_problem,
    needs_gradient_checkpointing,
)
from loupe.diffusion.processes import Processes
from loupe.diffusion.text_encoder_cost import with_text_encoder
from loupe.diffusion.train_settings import TrainSettings

VAE_DOWNSAMPLING = 8


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How training will use the memory there is."""

    gradient_checkpointing: bool
    notes: tuple[str, ...]
    """Sentences for the user: why activations are recomputed, and that it will not fit."""
    cost: UNetCost
    setting: TrainingSetting
    free_bytes: int


def checkpointing_option(
    choice: Checkpointing,
    base: Path,
    examples: Examples,
    *,
    settings: TrainSettings,
    adapter: AdapterConfig,
    policy: DevicePolicy,
    processes: Processes,
) -> dict[str, bool]:
    """Return the option of build_trainer; the main process says what was decided, and warns when memory will not do."""
    plan = plan_memory(base, examples, settings=settings, adapter=adapter, policy=policy, choice=choice)
    if processes.is_main and plan.notes:
        print(*plan.notes, sep="\n", flush=True)
    return {"gradient_checkpointing": plan.gradient_checkpointing}


def plan_memory(
    base: Path,
    examples: Examples,
    *,
    settings: TrainSettings,
    adapter: AdapterConfig,
    policy: DevicePolicy,
    choice: Checkpointing,
) -> MemoryPlan:
    """Return the plan for this run on this device, with the memory that is free now."""
    side = examples.mean.shape[-1]
    tokens = examples.embeddings.shape[1]
    cost = unet_cost(base, adapter=adapter, latent_side=side, text_tokens=tokens, policy=policy)
    if settings.train_text_encoder:
        cost = with_text_encoder(cost, base, adapter=adapter, text_tokens=tokens)
    free = available_bytes(policy)
    wanted = choice == "always" or (
        choice == "auto"
        and needs_gradient_checkpointing(cost, batch_size=settings.batch_size, policy=policy, free_bytes=free)
    )
    setting = TrainingSetting(
        resolution_px=side * VAE_DOWNSAMPLING,
        batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        gradient_checkpointing=wanted,
    )
    problem = memory_problem(cost, setting, device=policy.device, free_bytes=free)
    notes = []
    if wanted and choice == "auto":
        notes.append("train: gradient checkpointing is on, because training would not fit into memory without it")
    if problem:
        notes.append(f"train: WARNING: {problem}")
    return MemoryPlan(wanted, tuple(notes), cost, setting, free)
