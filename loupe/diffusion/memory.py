"""Will it fit: the memory that training and drawing need, what the device has, and the setting that would fit.

Sums over the counts of cost_model.py, nothing else. What is stated: weights in the policy's dtype; float32 numbers of
each adapter parameter (weight, gradient, what the optimizer keeps, a moving average); what the forward pass keeps, per
image; two of the largest tensors for the backward pass; a fixed allowance for the process; and what the validation
and the previews of a checkpoint load and compute beside the trainer. Measured against it: benchmarks/README.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from loupe.diffusion.container_memory import container_free_bytes
from loupe.diffusion.cost_model import DrawingCost, UNetCost
from loupe.diffusion.device import DevicePolicy
from loupe.launch import processes_of_this_machine

GB = 1e9
PROCESS_BYTES = {"cpu": 1_500_000_000, "cuda": 600_000_000, "mps": 600_000_000}
"""On the CPU Python with torch and diffusers, and what its kernels take aside: 1.5 GB where Stable Diffusion 1.5 was
measured (benchmarks/README.md). On a GPU the driver's context."""
FLOAT32 = 4
_SIDE_STEP = 64

Checkpointing = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True)
class Beside:
    """Work that is done while the trainer waits, at the resolution that was asked for."""

    weight_bytes: int
    activation_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetting:
    """The knobs that decide how much memory training takes."""

    resolution_px: int
    batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    numbers_per_parameter: int = 4
    """float32 numbers kept of each adapter parameter: itself, its gradient, what the optimizer and an average keep."""
    is_recorded: bool = False
    """Whether the step is recorded on a GPU (cuda_graph.py), which keeps its activations between steps."""
    beside: Beside = Beside(0, 0)
    """What is loaded and computed beside the trainer when a checkpoint comes."""

    def named(self) -> str:
        """Return the setting as lines of params.yaml say it."""
        return (
            f"data.resolution {self.resolution_px}, train.batch_size {self.batch_size}, "
            f"train.gradient_accumulation_steps {self.gradient_accumulation_steps}, "
            f"train.gradient_checkpointing {'always' if self.gradient_checkpointing else 'never'}"
        )


def available_bytes(policy: DevicePolicy) -> int:
    """Return how much memory this process may still take on the policy's device.

    Of a CPU's it is an equal share for each process of this machine; a GPU belongs to one process.
    """
    if policy.device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    if policy.device == "mps":
        import torch

        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    import psutil

    available = psutil.virtual_memory().available
    of_container = container_free_bytes()
    free = available if of_container is None else min(available, of_container)
    return free // processes_of_this_machine()


def training_bytes(
    cost: UNetCost,
    *,
    batch_size: int,
    gradient_checkpointing: bool,
    device: str,
    numbers_per_parameter: int = 4,
) -> int:
    """Return the peak memory of training; `cost` is of one image, and has the adapter itself in its weights."""
    kept = cost.checkpointed_bytes if gradient_checkpointing else cost.kept_bytes
    state = (numbers_per_parameter - 1) * cost.n_adapter_parameters * FLOAT32
    return cost.weight_bytes + state + batch_size * (kept + 2 * cost.largest_tensor_bytes) + PROCESS_BYTES[device]


def run_bytes(cost: UNetCost, setting: TrainingSetting, *, device: str, cost_px: int | None = None) -> int:
    """Return the peak memory of a training run: of its steps, or of what is done with a checkpoint beside the trainer.

    `cost_px` is the resolution that `cost` was counted at, where it is not the setting's; activations grow with the
    number of pixels (attention in fused form included).
    """
    share = (setting.resolution_px / (cost_px or setting.resolution_px)) ** 2
    fixed = step_bytes(cost, replace(setting, batch_size=0), device=device)
    activations = share * (step_bytes(cost, setting, device=device) - fixed)
    at_checkpoint = setting.beside.weight_bytes + share * setting.beside.activation_bytes
    return math.ceil(fixed + max(activations, at_checkpoint + (activations if setting.is_recorded else 0)))


def step_bytes(cost: UNetCost, setting: TrainingSetting, *, device: str) -> int:
    """Return the peak memory of a training step alone; `cost` is of one image at the setting's resolution."""
    return training_bytes(
        cost, batch_size=setting.batch_size, gradient_checkpointing=setting.gradient_checkpointing, device=device,
        numbers_per_parameter=setting.numbers_per_parameter,
    )  # fmt: skip


def needs_gradient_checkpointing(cost: UNetCost, asked: TrainingSetting, *, device: str, free_bytes: int) -> bool:
    """Return whether a run as asked, which is without, does not fit into `free_bytes` and takes less with it."""
    plain, checkpointed = (
        run_bytes(cost, setting, device=device)
        for setting in (asked, replace(asked, gradient_checkpointing=True, is_recorded=False))
    )
    return checkpointed < plain and plain > free_bytes


def drawing_bytes(cost: DrawingCost, *, n_pictures: int, guided: bool, device: str) -> int:
    """Return the peak memory of drawing `n_pictures` together: in the UNet or, one by one, in the VAE.

    On a GPU the UNet is recorded twice, with and without an adapter, and a recording keeps its memory (cuda_graph.py).
    """
    in_unet = n_pictures * (2 if guided else 1) * cost.row_bytes
    peak = 2 * in_unet + cost.decode_bytes if device == "cuda" else max(in_unet, cost.decode_bytes)
    return cost.weight_bytes + peak + PROCESS_BYTES[device]


def pictures_that_fit(cost: DrawingCost, *, asked: int, guided: bool, device: str, free_bytes: int) -> int:
    """Return the first of `asked`, its half, a quarter ... that fits into `free_bytes` together; 0 if not even one."""
    return next(
        (n for n in halvings(asked) if drawing_bytes(cost, n_pictures=n, guided=guided, device=device) <= free_bytes),
        0,
    )


def halvings(asked: int) -> Iterator[int]:
    """Yield `asked`, its half, a quarter ... down to 1, rounded down."""
    while asked:
        yield asked
        asked //= 2


def setting_that_fits(
    cost: UNetCost, asked: TrainingSetting, *, device: str, free_bytes: int
) -> TrainingSetting | None:
    """Return the nearest setting to `asked` that fits, or None.

    First gradient checkpointing, which changes no result; then smaller batches with more accumulation, which keep the
    effective batch size; then a lower resolution. `cost` is at the resolution that was asked for.
    """
    needed = {s: run_bytes(cost, s, device=device, cost_px=asked.resolution_px) for s in _nearer_to_farther(asked)}
    return next((setting for setting, n_bytes in needed.items() if n_bytes <= free_bytes), None)


def why_full(cost: UNetCost, tried: TrainingSetting, *, device: str, free_bytes: int) -> str:
    """Return what to do where training was estimated to fit and did not: the nearest setting that takes less."""
    needed = run_bytes(cost, tried, device=device)
    fitting = setting_that_fits(cost, tried, device=device, free_bytes=min(needed - 1, free_bytes))
    fitting = fitting or setting_that_fits(cost, tried, device=device, free_bytes=needed - 1)
    estimate = f"This training was estimated to take {needed / GB:.1f} of the {free_bytes / GB:.1f} GB that were free."
    advice = f"The nearest setting that takes less: {fitting.named()}." if fitting else "No setting would take less."
    return f"{estimate} {advice}"


def drawing_problem(
    cost: DrawingCost, *, n_pictures: int, side_px: int, guided: bool, device: str, free_bytes: int
) -> str | None:
    """Return why drawing `n_pictures` together does not fit, with the resolution that would; None when it fits.

    `cost` is of a picture of `side_px` squared; activations grow with the number of pixels.
    """
    needed = drawing_bytes(cost, n_pictures=n_pictures, guided=guided, device=device)
    if needed <= free_bytes:
        return None
    fixed = cost.weight_bytes + PROCESS_BYTES[device]
    sides = range(side_px - side_px % -_SIDE_STEP - _SIDE_STEP, 0, -_SIDE_STEP)
    fitting = next((side for side in sides if fixed + (side / side_px) ** 2 * (needed - fixed) <= free_bytes), None)
    advice = f"This would fit: data.resolution {fitting}." if fitting else "No resolution would fit on this device."
    together = "one picture" if n_pictures == 1 else f"{n_pictures} pictures together"
    return (
        f"drawing {together} of {side_px} x {side_px} px needs about {needed / GB:.1f} GB on {device}, and "
        f"{free_bytes / GB:.1f} GB are free. {advice}"
    )


def memory_problem(cost: UNetCost, asked: TrainingSetting, *, device: str, free_bytes: int) -> str | None:
    """Return why training as asked does not fit, with the setting that would; None when it fits."""
    needed = run_bytes(cost, asked, device=device)
    if needed <= free_bytes:
        return None
    what = (
        "training"
        if step_bytes(cost, asked, device=device) >= needed
        else "training, with what is done with a checkpoint beside it,"
    )
    fitting = setting_that_fits(cost, asked, device=device, free_bytes=free_bytes)
    advice = f"This would fit: {fitting.named()}." if fitting else "No setting would fit on this device."
    return f"{what} needs about {needed / GB:.1f} GB on {device}, and {free_bytes / GB:.1f} GB are free. {advice}"


def _nearer_to_farther(asked: TrainingSetting) -> Iterator[TrainingSetting]:
    yield asked
    divisors = [n for n in range(asked.batch_size, 0, -1) if asked.batch_size % n == 0]
    for side in range(asked.resolution_px, 0, -_SIDE_STEP):
        for batch_size in divisors:
            yield replace(
                asked,
                resolution_px=side,
                batch_size=batch_size,
                gradient_accumulation_steps=asked.gradient_accumulation_steps * (asked.batch_size // batch_size),
                gradient_checkpointing=True,
                is_recorded=False,
            )
