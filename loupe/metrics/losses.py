"""The validation losses of a run's checkpoints as evaluation takes them over from `train`. It reads no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ValidationLosses:
    """What `train` measured on the val photos; nothing where that was not asked for."""

    by_step: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Step -> the columns of metric_specs.LOSS_COLUMNS that have a value."""
    by_timestep: Mapping[tuple[int, int], float] = field(default_factory=dict)
    """(step, timestep) -> loss there."""
    absent: Mapping[int, str] = field(default_factory=dict)
    """Step -> why it has no loss."""
    findings: tuple[str, ...] = ()
    """Why there are none, or not all: which file, what is wrong with it, and what makes it anew."""

    @property
    def timesteps(self) -> list[int]:
        """The fixed timesteps, ascending."""
        return sorted({timestep for _, timestep in self.by_timestep})
