"""Numbers as a file has them beside the same numbers computed again: which differ, where and by how much."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loupe.errors import PipelineError

RELATIVE, ABSOLUTE = 1e-6, 1e-7
"""Numbers are written with 8 significant digits; another machine moves the last bits of a kernel."""
BEYOND = "a cell beyond the header"
Row = Mapping[str, Any]


class NumberComparison:
    """Counts what was compared and keeps a sentence for everything that differs."""

    def __init__(self) -> None:
        self.n_numbers = 0
        self.found: list[str] = []

    def rows(
        self,
        file: str,
        written: Sequence[Row],
        again: Sequence[Row],
        columns: Sequence[str],
        *,
        named_by: Sequence[str],
    ) -> None:
        """Compare rows by the cells `named_by`; `columns` is the whole header, or () to look at those of `again`."""
        by_name = {_name(row, named_by): row for row in again}
        of_file: dict[str, Row] = {}
        for row in written:
            name = _name(row, named_by)
            if name in of_file:
                self.found.append(f"{file}: {name} stands there twice")
            of_file[name] = row
        self.found += [f"{file}: there is no row of {name}" for name in by_name if name not in of_file]
        self.found += [f"{file}: nothing is known of {name}" for name in of_file if name not in by_name]
        for name in (name for name in by_name if name in of_file):
            self.cells(file, f"{name}, ", of_file[name], by_name[name], columns)

    def cells(self, file: str, place: str, written: Row, again: Row, columns: Sequence[str]) -> None:
        """Compare one row, or one JSON object, cell by cell; an empty cell and none are the same."""
        for name in dict.fromkeys((*columns, *again, *(written if columns else ()))):
            before, now = number_or_text(written.get(name)), number_or_text(again.get(name))
            self.n_numbers += isinstance(now, float)
            if not _same(before, now):
                self.found.append(
                    f"{file}: {place}{name} is {_shown(before)}, recomputed {_shown(now)}{_by(before, now)}"
                )

    def arrays(self, place: str, written: NDArray | None, again: NDArray) -> None:
        """Compare two arrays, which count as no numbers of a file; NaN is NaN."""
        if written is None or written.shape != again.shape:
            self.found.append(f"{place} are {'absent' if written is None else 'not as many'}, recomputed {again.size}")
        elif not np.allclose(written, again, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True):
            apart = float(np.nanmax(np.abs(written - again), initial=0.0))
            self.found.append(f"{place} are others when recomputed (they differ by up to {apart:.3g})")


def read_table(path: Path, *, made_by: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file as text; PipelineError when it is absent or no such file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, restkey=BEYOND))
    except FileNotFoundError:
        raise PipelineError(f"{path} is not there. Run: dvc repro {made_by}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise PipelineError(f"{path} cannot be read: {error}. Make it anew: dvc repro --force {made_by}") from None


def read_object(path: Path, *, made_by: str) -> dict[str, Any]:
    """Return the content of a JSON file; PipelineError when it is absent or no such file."""
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
    except FileNotFoundError:
        raise PipelineError(f"{path} is not there. Run: dvc repro {made_by}") from None
    except ValueError as error:
        raise PipelineError(f"{path} cannot be read: {error}. Make it anew: dvc repro --force {made_by}") from None
    return content


def _name(row: Row, named_by: Sequence[str]) -> str:
    return ", ".join(f"{name} {row.get(name)}" for name in named_by)


def number_or_text(cell: Any) -> float | str | None:
    """Return a cell as a number where it is one; None for an empty one."""
    if cell is None or cell == "":
        return None
    try:
        return float(cell)
    except (TypeError, ValueError):
        return str(cell)


def _same(before: float | str | None, now: float | str | None) -> bool:
    if isinstance(before, float) and isinstance(now, float):
        return math.isclose(before, now, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return before == now


def _shown(value: float | str | None) -> str:
    return "absent" if value is None else f"{value:.8g}" if isinstance(value, float) else value


def _by(before: float | str | None, now: float | str | None) -> str:
    both = isinstance(before, float) and isinstance(now, float)
    return f" (differs by {abs(before - now):.3g})" if both else ""
