"""Reads styles.csv tolerantly: finds rows with unquoted commas, repairs or skips them, and names every one.

It knows the file's columns, not what they are used for.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loupe.errors import PipelineError, nearest_names, problems_message
from loupe.records import MalformedRow

REQUIRED_COLUMNS = ("id", "gender", "articleType", "baseColour", "season", "year", "usage", "productDisplayName")
_MISSING_VALUES = frozenset({"", "NA", "N/A", "nan", "NaN", "null"})


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One data row; a missing value (empty, NA, ...) is the empty string."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True, slots=True)
class CsvTable:
    """The rows of a file in its order, without those that were skipped."""

    rows: tuple[CsvRow, ...]
    n_rows: int
    """Data rows in the file, skipped ones included."""
    malformed_rows: tuple[MalformedRow, ...]


def read_csv_rows(path: Path, *, malformed_rows: Literal["repair", "skip"]) -> CsvTable:
    """Read a comma-separated file whose last column may hold unquoted commas.

    A row with surplus cells is repaired by joining them into the last column, or skipped; a row with too few cells
    cannot be repaired and is always skipped. Both are listed.

    Raises PipelineError for a file that is absent, empty, not UTF-8, without the needed columns or without rows.
    """
    reader = csv.reader(io.StringIO(_decode(path), newline=""))
    rows: list[CsvRow] = []
    malformed: list[MalformedRow] = []
    n_rows = 0
    try:
        columns = _checked_header(path, next(reader, []))
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            n_rows += 1
            action = _action(len(cells), len(columns), malformed_rows)
            if action is not None:
                malformed.append(_malformed(reader.line_num, cells, columns, action))
            if action != "skipped":
                whole = [*cells[: len(columns) - 1], ",".join(cells[len(columns) - 1 :])]
                values = [_value(cell) for cell in whole]
                rows.append(CsvRow(line=reader.line_num, cells=dict(zip(columns, values, strict=True))))
    except csv.Error as error:
        hint = "Look for a quotation mark without its pair."
        raise PipelineError(f"{path} line {reader.line_num}: {error}. {hint}") from None
    if not rows:
        raise PipelineError(f"{path} has a header but no usable row; expected one row per photo.")
    return CsvTable(rows=tuple(rows), n_rows=n_rows, malformed_rows=tuple(malformed))


def _decode(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PipelineError(
            f"{path} is not there. Expected a folder with styles.csv and images/<id>.jpg; set data.root to it."
        ) from None
    if not content.strip():
        raise PipelineError(f"{path} is empty. Download it again; its first line must name the columns.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise PipelineError(f"{path} line {line} is not UTF-8 (byte {error.start}). Save the file as UTF-8.") from None


def _checked_header(path: Path, header: list[str]) -> list[str]:
    columns = [name.strip() for name in header]
    problems = []
    for missing in (name for name in REQUIRED_COLUMNS if name not in columns):
        nearest = nearest_names(missing, (name for name in columns if name not in REQUIRED_COLUMNS), limit=1)
        problems.append(f"no column {missing}" + (f"; is {nearest[0]} meant?" if nearest else ""))
    problems += [f"column {name} is there twice" for name in dict.fromkeys(columns) if columns.count(name) > 1]
    if problems:
        problems.append(f"found: {', '.join(columns)}")
        raise PipelineError(problems_message(str(path), problems))
    return columns


def _action(n_cells: int, n_columns: int, wanted: Literal["repair", "skip"]) -> Literal["repaired", "skipped"] | None:
    if n_cells == n_columns:
        return None
    return "repaired" if n_cells > n_columns and wanted == "repair" else "skipped"


def _malformed(line: int, cells: list[str], columns: list[str], action: Literal["repaired", "skipped"]) -> MalformedRow:
    place = columns.index("id")
    image_id = cells[place].strip() if place < len(cells) else ""
    return MalformedRow(line=line, n_cells=len(cells), image_id=image_id, action=action)


def _value(cell: str) -> str:
    stripped = cell.strip()
    return "" if stripped in _MISSING_VALUES else stripped
