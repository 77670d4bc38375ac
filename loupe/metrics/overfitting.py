"""What tells whether training went too far, over the steps in one table: validation loss beside what pictures lose.

It computes none of it: the loss comes from `train`, the rest from the scores. None of these alone is a verdict.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from loupe.errors import PipelineError
from loupe.metric_specs import MetricSpec
from loupe.train_records import ValidationRow, ValidationTimestepRow

Row = TypeVar("Row", bound=BaseModel)

LOSS = ("val_loss", "val_loss_diff_base", "val_loss_diff_base_lo", "val_loss_diff_base_hi")
SIGNS = ("kid", "diversity", "memorisation")


@dataclass(frozen=True, slots=True)
class ValidationLosses:
    """What `train` measured on the val photos."""

    by_step: Mapping[int, ValidationRow]
    by_timestep: Mapping[tuple[int, int], float]
    """(step, timestep) -> loss there."""

    @property
    def timesteps(self) -> list[int]:
        """The fixed timesteps, ascending."""
        return sorted({timestep for _, timestep in self.by_timestep})


def overfitting_columns(specs: Mapping[str, MetricSpec], losses: ValidationLosses) -> list[str]:
    """Return the header of metrics/overfitting.csv: step, validation loss, each sign with its interval, then the loss
    at each timestep (`val_loss_t62` ...).
    """
    signs = (f"{key}{end}" for key in _sign_keys(specs) for end in ("", "_lo", "_hi"))
    return ["step", *LOSS, *signs, *(_at(timestep) for timestep in losses.timesteps)]


def overfitting_rows(
    checkpoint_rows: Iterable[Mapping[str, Any]], losses: ValidationLosses, specs: Mapping[str, MetricSpec]
) -> list[dict[str, Any]]:
    """Return one row per checkpoint, the base model first; a value that does not exist is left out."""
    columns = overfitting_columns(specs, losses)
    rows = []
    for scores in checkpoint_rows:
        step = int(scores["step"])
        loss = losses.by_step.get(step)
        at_timesteps = {_at(timestep): losses.by_timestep.get((step, timestep)) for timestep in losses.timesteps}
        joined = {**scores, **at_timesteps, **(loss.model_dump(include=set(LOSS)) if loss else {})}
        rows.append({name: joined[name] for name in columns if joined.get(name) is not None})
    return rows


def read_validation_losses(folder: Path) -> ValidationLosses:
    """Return what validation.csv and validation_timesteps.csv hold; PipelineError when one is absent or broken."""
    of_steps = _rows(folder / "validation.csv", ValidationRow)
    of_timesteps = _rows(folder / "validation_timesteps.csv", ValidationTimestepRow)
    return ValidationLosses(
        by_step={row.step: row for row in of_steps},
        by_timestep={(row.step, row.timestep): row.loss for row in of_timesteps},
    )


def _rows(path: Path, kind: type[Row]) -> list[Row]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = [{name: cell or None for name, cell in line.items()} for line in csv.DictReader(file)]
        return [kind.model_validate(line) for line in lines]
    except FileNotFoundError:
        raise PipelineError(f"{path} is not there. Run: dvc repro train") from None
    except (ValidationError, UnicodeDecodeError, csv.Error, TypeError) as error:
        raise PipelineError(f"{path} cannot be read: {error}. Make it anew: dvc repro --force train") from None


def _at(timestep: int) -> str:
    return f"val_loss_t{timestep}"


def _sign_keys(specs: Mapping[str, MetricSpec]) -> list[str]:
    return [key for key, spec in specs.items() if spec.criterion in SIGNS]
