"""What tells whether training went too far, over the steps in one table: validation loss beside what pictures lose.

It computes none of it: the loss comes from `train`, the rest from the scores. None of these alone is a verdict.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from loupe.errors import PipelineError
from loupe.metric_specs import MetricSpec
from loupe.train_records import ValidationRow

LOSS = ("val_loss", "val_loss_diff_base", "val_loss_diff_base_lo", "val_loss_diff_base_hi")
SIGNS = ("kid", "diversity", "memorisation")


def overfitting_columns(specs: Mapping[str, MetricSpec]) -> list[str]:
    """Return the header of metrics/overfitting.csv: step, validation loss, then each sign with its interval."""
    return ["step", *LOSS, *(f"{key}{end}" for key in _sign_keys(specs) for end in ("", "_lo", "_hi"))]


def overfitting_rows(
    checkpoint_rows: Iterable[Mapping[str, Any]], losses: Mapping[int, ValidationRow], specs: Mapping[str, MetricSpec]
) -> list[dict[str, Any]]:
    """Return one row per checkpoint, the base model first; a value that does not exist is left out."""
    columns = overfitting_columns(specs)
    rows = []
    for scores in checkpoint_rows:
        loss = losses.get(int(scores["step"]))
        joined = {**scores, **(loss.model_dump(include=set(LOSS)) if loss else {})}
        rows.append({name: joined[name] for name in columns if joined.get(name) is not None})
    return rows


def read_validation_losses(path: Path) -> dict[int, ValidationRow]:
    """Return step -> row of metrics/validation.csv; PipelineError when it is absent or broken."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = [{name: cell or None for name, cell in line.items()} for line in csv.DictReader(file)]
        rows = [ValidationRow.model_validate(line) for line in lines]
    except FileNotFoundError:
        raise PipelineError(f"{path} is not there. Run: dvc repro train") from None
    except (ValidationError, UnicodeDecodeError, csv.Error, TypeError) as error:
        raise PipelineError(f"{path} cannot be read: {error}. Make it anew: dvc repro --force train") from None
    return {row.step: row for row in rows}


def _sign_keys(specs: Mapping[str, MetricSpec]) -> list[str]:
    return [key for key, spec in specs.items() if spec.criterion in SIGNS]
