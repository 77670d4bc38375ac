"""Tolerant, memoised reading of a run's files: what is whole is returned, what is broken is named, nothing is written.

It knows neither stages nor metrics. A file is read again only when its size or time of change differs, or when it was
last read so soon after a change that the next one could bear the same time.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import BaseModel

from loupe.atomic_io import read_record, sha256_file
from loupe.errors import PipelineError

Record = TypeVar("Record", bound=BaseModel)
Derived = TypeVar("Derived")
Signature = tuple[int, int]
Cells = Mapping[str, float | str]
_CLOCK_TICK_NS = 50_000_000
"""Two changes within this time may bear the same time: file systems count in ticks of some milliseconds."""
_HASHING_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that cannot be believed: where it is, relative to the project, and what to do about it."""

    file: str
    message: str


@dataclass(frozen=True, slots=True)
class _Reading:
    signature: Signature
    value: Any
    problems: tuple[Problem, ...]
    is_settled: bool = True
    """False when it was read so soon after a change that another one could go unnoticed."""


def signature(path: Path) -> Signature | None:
    """Return (time of change in ns, size in bytes) of a file or folder, or None when it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def listing(folder: Path) -> list[Path]:
    """Return what a folder holds, by name; nothing when it is not there, or vanishes as DVC removes it."""
    try:
        return [folder / name for name in sorted(os.listdir(folder))]  # noqa: PTH208 - thousands of folders, often
    except OSError:
        return []


def signatures(folder: Path) -> list[tuple[str, Signature]]:
    """Return name and signature of all that lies in a folder, by name; what vanishes meanwhile is left out."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    stat = entry.stat()
                except OSError:
                    continue
                found.append((entry.name, (stat.st_mtime_ns, stat.st_size)))
    except OSError:
        return []
    return sorted(found)


def stays_inside(file: str) -> bool:
    """Whether a name that a record gives a file, relative to a folder, names nothing outside that folder."""
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in file


class RunFiles:
    """Reads files under one root; a broken one gives None and a Problem, an absent one None alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._readings: dict[tuple[Path, str], _Reading] = {}
        self._derived: dict[str, tuple[tuple[Any, ...], Any]] = {}

    def record(self, path: Path, kind: type[Record], *, made_by: str) -> Record | None:
        """Read a JSON record."""
        return self._read(path, kind.__name__, lambda: (read_record(path, kind, made_by=made_by), []))

    def json_object(self, path: Path, *, required: Collection[str] = (), made_by: str) -> dict[str, Any] | None:
        """Read a JSON object of finite numbers and texts by name; those `required` must be whole numbers."""

        def parse() -> tuple[dict[str, Any], list[str]]:
            def refuse(name: str) -> float:
                raise ValueError(f"it holds {name}")

            try:
                content = json.loads(path.read_bytes(), parse_constant=refuse)
            except (ValueError, RecursionError) as error:
                raise PipelineError(f"cannot be read: {error}. Make it anew: dvc repro --force {made_by}") from None
            flat = isinstance(content, dict) and not any(isinstance(v, dict | list) for v in content.values())
            if not flat or not all(isinstance(content.get(name), int) for name in required):
                raise PipelineError(f"holds something else than scores. Make it anew: dvc repro --force {made_by}")
            return content, []

        return self._read(path, "object", parse)

    def table(
        self, path: Path, *, required: Collection[str], text: Collection[str] = (), made_by: str
    ) -> tuple[Cells, ...] | None:
        """Read a CSV of finite numbers, `text` columns aside; an empty cell is absent from its row.

        A row that is cut short, and a cell that is no finite number, are left out and named; a file without the
        `required` columns is refused whole.
        """
        return self._read(path, "table", lambda: _parse_table(path, set(required), set(text), made_by))

    def parsed(self, path: Path, name: str, parse: Callable[[], Any]) -> Any:
        """Return parse() of a file, remembered under `name`; a PipelineError becomes a Problem and None."""
        return self._read(path, name, lambda: (parse(), []))

    def sha256(self, path: Path) -> str | None:
        """Return the SHA-256 of a file's bytes, or None when there is no such file."""
        return self._read(path, "sha256", lambda: (sha256_file(path), []))

    def hash_ahead(self, paths: Iterable[Path]) -> None:
        """Compute the SHA-256 of files that were not read before, on several cores, for `sha256` to find."""
        unknown = [path for path in paths if (path, "sha256") not in self._readings]
        if len(unknown) > 1:
            with ThreadPoolExecutor(_HASHING_THREADS) as pool:
                list(pool.map(self.sha256, unknown))

    def derived(self, name: str, derive: Callable[..., Derived], *sources: Any) -> Derived:
        """Return derive(*sources), remembered under `name` as long as the sources are the same objects.

        What was read from a file stays the same object until the file changes, so this is as fresh as its sources.
        """
        known = self._derived.get(name)
        if known is None or any(now is not then for now, then in zip(sources, known[0], strict=True)):
            known = self._derived[name] = (sources, derive(*sources))
        return known[1]

    def problems(self) -> tuple[Problem, ...]:
        """Return what is wrong with the files read so far, each once, ordered by file.

        A file that has changed since is no longer blamed for what it was.
        """
        broken = [(path, reading) for (path, _), reading in list(self._readings.items()) if reading.problems]
        blamed = [reading.problems for path, reading in broken if signature(path) == reading.signature]
        return tuple(sorted(dict.fromkeys(chain.from_iterable(blamed)), key=lambda problem: problem.file))

    def relative(self, path: Path) -> str:
        """Return the path as a reader of the project knows it."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name

    def _read(self, path: Path, name: str, parse: Callable[[], tuple[Any, list[str]]]) -> Any:
        key, now = (path, name), signature(path)
        if now is None:
            self._readings.pop(key, None)
            return None
        known = self._readings.get(key)
        if known is None or known.signature != now or not known.is_settled:
            known = self._readings[key] = self._parse(path, now, parse)
        return known.value

    def _parse(self, path: Path, now: Signature, parse: Callable[[], tuple[Any, list[str]]]) -> _Reading:
        file = self.relative(path)
        is_settled = not 0 <= time.time_ns() - now[0] < _CLOCK_TICK_NS
        try:
            value, notes = parse()
        except PipelineError as error:
            message = str(error).replace(str(path), file).removeprefix(f"{file} ")
            return _Reading(now, None, (Problem(file, message),), is_settled)
        except FileNotFoundError:
            return _Reading((0, 0), None, ())
        except OSError as error:
            return _Reading(now, None, (Problem(file, f"cannot be opened: {error.strerror}"),), is_settled)
        return _Reading(now, value, tuple(Problem(file, note) for note in notes), is_settled)


def _parse_table(path: Path, required: set[str], text: set[str], made_by: str) -> tuple[tuple[Cells, ...], list[str]]:
    anew = f"Make it anew: dvc repro --force {made_by}"
    try:
        content = path.read_text(encoding="utf-8")
        lines = list(csv.reader(io.StringIO(content, newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise PipelineError(f"is not a CSV in UTF-8: {error}. {anew}") from None
    header = lines[0] if lines else []
    missing = sorted(required - set(header))
    if missing:
        raise PipelineError(f"has no column {', '.join(missing)}. {anew}")
    rows, notes = [], []
    if not content.endswith("\n"):
        # The last number may have lost digits and would still be one.
        notes.append(f"line {len(lines)} is cut short; it is left out. {anew}")
        lines.pop()
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(header):
            notes.append(f"line {number} has {len(cells)} cells instead of {len(header)}; it is left out. {anew}")
            continue
        row, wrong = _parse_row(dict(zip(header, cells, strict=True)), text)
        notes += [f"line {number}, column {name}: {cell!r} is no finite number. {anew}" for name, cell in wrong]
        if required <= row.keys():
            rows.append(row)
        elif not wrong:
            notes.append(f"line {number} has no {', '.join(sorted(required - row.keys()))}; it is left out. {anew}")
    return tuple(rows), notes


def _parse_row(cells: Mapping[str, str], text: set[str]) -> tuple[Cells, list[tuple[str, str]]]:
    row: dict[str, float | str] = {}
    wrong = []
    for name, cell in cells.items():
        if cell == "":
            continue
        if name in text:
            row[name] = cell
            continue
        number = _number(cell)
        if math.isfinite(number):
            row[name] = number
        else:
            wrong.append((name, cell))
    return row, wrong


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
