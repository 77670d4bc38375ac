"""Before training: whether activations are recomputed in the backward pass, and what to say about memory.

It counts with cost_model.py on the base model and latents that are there, and asks the device what is free. It refuses
nothing: an estimate can be wrong, and `loupe check` is where go or no-go is said. Where one was wrong, it says what
takes less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from loupe.diffusion.adapter import AdapterConfig
from loupe.diffusion.base_model_files import PIXELS_PER_LATENT
from loupe.diffusion.cost_model import UNetCost, drawing_cost, unet_cost
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.forward_pass import records_steps
from loupe.diffusion.latent_files import Examples
from loupe.diffusion.memory import (
    PROCESS_BYTES,
    Beside,
    Checkpointing,
    TrainingSetting,
    available_bytes,
    drawing_bytes,
    memory_problem,
    needs_gradient_checkpointing,
    why_full,
)
from loupe.diffusion.optimizers import NUMBERS_KEPT
from loupe.diffusion.processes import ALONE, Processes
from loupe.diffusion.sampling import PICTURES_AT_ONCE_CPU
from loupe.diffusion.text_encoder_cost import with_text_encoder
from loupe.diffusion.train_settings import TrainSettings
from loupe.diffusion.validation import ROWS_AT_ONCE


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How training will use the memory there is."""

    gradient_checkpointing: bool
    notes: tuple[str, ...]
    """Sentences for the user: why activations are recomputed, and that it will not fit."""
    cost: UNetCost
    setting: TrainingSetting
    free_bytes: int
    device: str

    def why_full(self) -> str:
        """Return what to do where memory was full all the same."""
        return why_full(self.cost, self.setting, device=self.device, free_bytes=self.free_bytes)


def plan_memory(
    base: Path,
    examples: Examples,
    *,
    settings: TrainSettings,
    adapter: AdapterConfig,
    policy: DevicePolicy,
    choice: Checkpointing,
    previews: bool,
    processes: Processes = ALONE,
    sharing: int = 1,
) -> MemoryPlan:
    """Return the plan for this run on this device, with the memory that is free now; `previews`: whether it draws.

    Several processes go by the least that one of them has free: they must do the same. Before they are started, it is
    what is free over the number that will be `sharing` it.
    """
    side = examples.mean.shape[-1]
    tokens = examples.embeddings.shape[1]
    cost = unet_cost(base, adapter=adapter, latent_side=side, text_tokens=tokens, policy=policy)
    if settings.train_text_encoder:
        cost = with_text_encoder(cost, base, adapter=adapter, text_tokens=tokens)
    free = processes.least(available_bytes(policy) // sharing)
    plain = TrainingSetting(
        resolution_px=side * PIXELS_PER_LATENT,
        batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        gradient_checkpointing=False,
        numbers_per_parameter=2 + NUMBERS_KEPT[settings.optimizer] + (settings.ema_decay is not None),
        is_recorded=records_steps(settings, autocasts=adapter.use_dora, policy=policy),
        beside=_beside(cost, base, latent_side=side, text_tokens=tokens, policy=policy, previews=previews),
    )
    wanted = choice == "always" or (
        choice == "auto" and needs_gradient_checkpointing(cost, plain, device=policy.device, free_bytes=free)
    )
    setting = replace(plain, gradient_checkpointing=wanted, is_recorded=plain.is_recorded and not wanted)
    problem = memory_problem(cost, setting, device=policy.device, free_bytes=free)
    notes = []
    if wanted and choice == "auto":
        notes.append("train: gradient checkpointing is on, because training would not fit into memory without it")
    if problem:
        notes.append(f"train: WARNING: {problem}")
    return MemoryPlan(wanted, tuple(notes), cost, setting, free, policy.device)


def _beside(
    cost: UNetCost, base: Path, *, latent_side: int, text_tokens: int, policy: DevicePolicy, previews: bool
) -> Beside:
    """Return what a checkpoint takes beside the trainer: its validation or, if that is more, its guided previews.

    A GPU validates row by row where it must (validation.py), and goes without previews (previews.py).
    """
    if policy.device != "cpu":
        return Beside(cost.weight_bytes, cost.row_bytes)
    validation = Beside(beside_bytes(cost.weight_bytes), ROWS_AT_ONCE * cost.row_bytes)
    if not previews:
        return validation
    drawing = drawing_cost(base, latent_side=latent_side, text_tokens=text_tokens, policy=policy)
    whole = drawing_bytes(drawing, n_pictures=PICTURES_AT_ONCE_CPU, guided=True, device="cpu") - PROCESS_BYTES["cpu"]
    drawn = Beside(beside_bytes(drawing.weight_bytes), whole - drawing.weight_bytes)
    return max(validation, drawn, key=lambda work: work.weight_bytes + work.activation_bytes)


def beside_bytes(weight_bytes: int) -> int:
    """Return what a second model takes on a CPU: a quarter more than its weights, which its kernels take aside.

    Measured at full size, in four runs: 0.28 to 0.72 GB beside weights of 3.44 GB (bench_full_size --validate).
    """
    return weight_bytes * 5 // 4
