"""What tells whether training went too far, over the steps in one table: validation loss beside what pictures lose.

It computes none of it: the loss comes from `train`, the rest from the scores. None of these alone is a verdict.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from loupe.metric_specs import LOSS_COLUMNS, MetricSpec
from loupe.metrics.losses import ValidationLosses
from loupe.train_records import ValidationRow, ValidationTimestepRow

Row = TypeVar("Row", bound=BaseModel)

SIGNS = ("kid", "diversity", "memorisation")


def overfitting_columns(specs: Mapping[str, MetricSpec], losses: ValidationLosses) -> list[str]:
    """Return the header of metrics/overfitting.csv: step, validation loss, each sign with its interval, then the loss
    at each timestep (`val_loss_t62` ...).
    """
    signs = (f"{key}{end}" for key in _sign_keys(specs) for end in ("", "_lo", "_hi"))
    return ["step", *LOSS_COLUMNS, *signs, *(_at(timestep) for timestep in losses.timesteps)]


def overfitting_rows(
    checkpoint_rows: Iterable[Mapping[str, Any]], losses: ValidationLosses, specs: Mapping[str, MetricSpec]
) -> list[dict[str, Any]]:
    """Return one row per checkpoint from its row of checkpoints.csv; a value that does not exist is left out."""
    columns = overfitting_columns(specs, losses)
    rows = []
    for scores in checkpoint_rows:
        step = int(scores["step"])
        at_timesteps = {_at(timestep): losses.by_timestep.get((step, timestep)) for timestep in losses.timesteps}
        joined = {**scores, **at_timesteps}
        rows.append({name: joined[name] for name in columns if joined.get(name) is not None})
    return rows


def read_validation_losses(folder: Path, steps: Sequence[int]) -> ValidationLosses:
    """Return what validation.csv and validation_timesteps.csv hold.

    A file that is absent, broken or without a row of one of the `steps` is a finding: no score of pictures needs it.
    """
    of_steps, why_no_steps = _rows(folder / "validation.csv", ValidationRow, steps)
    of_timesteps, why_no_timesteps = _rows(folder / "validation_timesteps.csv", ValidationTimestepRow, steps)
    by_step = {row.step: row.model_dump(include=set(LOSS_COLUMNS), exclude_none=True) for row in of_steps}
    return ValidationLosses(
        by_step=by_step,
        by_timestep={(row.step, row.timestep): row.loss for row in of_timesteps},
        absent={step: reason for reason in why_no_steps for step in steps if step not in by_step},
        findings=(*why_no_steps, *why_no_timesteps),
    )


def _rows(path: Path, kind: type[Row], steps: Sequence[int]) -> tuple[list[Row], tuple[str, ...]]:
    """Return the rows, none where one of them is broken, and what a reader should know of them."""
    place = f"{path.parent.name}/{path.name}"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file)
            rows = [kind.model_validate({name: cell or None for name, cell in line.items()}) for line in lines]
    except FileNotFoundError:
        return [], (f"{place} is not there, so its validation losses are left out; make it: dvc repro train",)
    except (ValidationError, UnicodeDecodeError, csv.Error, TypeError) as error:
        found = f"line {lines.line_num}: {_first(error)}" if isinstance(error, ValidationError) else str(error)
        what = f"{place} cannot be read ({found}), so its validation losses are left out"
        return [], (f"{what}; make it anew: dvc repro --force train",)
    known = {getattr(row, "step", None) for row in rows}
    missing = ", ".join(str(step) for step in steps if step not in known)
    return rows, (f"{place} has no row of step {missing}; make it anew: dvc repro --force train",) if missing else ()


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _at(timestep: int) -> str:
    return f"val_loss_t{timestep}"


def _sign_keys(specs: Mapping[str, MetricSpec]) -> list[str]:
    return [key for key, spec in specs.items() if spec.criterion in SIGNS]
