"""What every training of the kit shares: learning rate over steps, averaged weights, precision, log of losses."""

import csv
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch


def warm_cosine(step: int, *, steps: int, warm_up: int = 200, floor: float = 0.02) -> float:
    """Factor on the learning rate: linear warm-up, then cosine decay to `floor`."""
    if step < warm_up:
        return (step + 1) / warm_up
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


class AveragedWeights:
    """Exponential moving average of a module's parameters; the decay ramps up so that early averages are not stale."""

    def __init__(self, module: torch.nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.values = [value.detach().clone() for value in module.parameters()]

    @torch.no_grad()
    def update(self, module: torch.nn.Module, step: int) -> None:
        """Move the average towards the module."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [value.detach() for value in module.parameters()], 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: torch.nn.Module) -> None:
        """Overwrite the module's parameters by their average."""
        for value, average in zip(module.parameters(), self.values, strict=True):
            value.copy_(average)


def half_precision(device: torch.device) -> AbstractContextManager:
    """bfloat16 autocast: on CPUs with bf16 units and on CUDA it is faster, and training here does not need more."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type in ("cpu", "cuda"))


class LossLog:
    """Mean losses every `every` steps, as a CSV file and a line on standard output."""

    def __init__(self, path: Path, *, every: int = 50) -> None:
        self.path, self.every = path, every
        self.sums: dict[str, float] = {}
        self.rows: list[dict[str, float]] = []
        self.began = time.monotonic()

    def add(self, step: int, losses: dict[str, torch.Tensor]) -> None:
        """Note the losses of one step (counted from 1)."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        if step % self.every == 0:
            means = {name: round(total / self.every, 6) for name, total in self.sums.items()}
            self.rows.append({"step": step, "seconds": round(time.monotonic() - self.began, 1), **means})
            self.sums.clear()
            print(self.path.stem, self.rows[-1], flush=True)
            self.write()

    def write(self) -> None:
        """Rewrite the CSV."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def last(self) -> dict[str, float]:
        """The last row."""
        return self.rows[-1]


def steps_with_rate(optimiser: torch.optim.Optimizer, *, steps: int, rate: float, warm_up: int = 200) -> Iterator[int]:
    """Count 0 … steps - 1, setting the learning rate before each."""
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * warm_cosine(step, steps=steps, warm_up=warm_up)
        yield step
