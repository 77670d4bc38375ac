"""Atomic writes and verified reads: a file either is whole or is not there.

Every write goes to a temporary file in the target's folder, is flushed to disk and renamed over the target. Nothing is
ever edited in place: DVC's cached outputs may be hard links.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from loupe.errors import PipelineError

Record = TypeVar("Record", bound=BaseModel)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success flush it and rename it to `target`, on failure remove it.

    For writers that need a file name (Pillow, safetensors). The parent folder is created. The temporary name keeps the
    target's suffix, since such writers choose the format by it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=f".tmp{target.suffix}", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(target: Path, content: bytes) -> None:
    """Write `content` to `target` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path, content: str) -> None:
    """Write `content` to `target` atomically as UTF-8 with Unix line ends."""
    write_bytes(target, content.encode("utf-8"))


def write_json(target: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write JSON with sorted keys, atomically. A NaN or infinity raises ValueError: such a value must be left out."""
    write_text(target, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def write_record(target: Path, record: BaseModel) -> None:
    """Write one record as JSON, atomically."""
    write_json(target, record.model_dump(mode="json"))


def write_records(target: Path, records: Iterable[BaseModel]) -> None:
    """Write records as JSON lines, atomically, in the order given."""
    contents = (record.model_dump(mode="json") for record in records)
    lines = [json.dumps(c, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n" for c in contents]
    write_text(target, "".join(lines))


def write_csv(target: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV with the given columns, atomically. A missing or None value is an empty cell."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(columns), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(target, buffer.getvalue())


def read_record(path: Path, kind: type[Record], *, made_by: str) -> Record:
    """Read one record; an absent, truncated or foreign file is a PipelineError that names the stage which makes it."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise PipelineError(f"{path} is not there. Run: dvc repro {made_by}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise PipelineError(
            f"{path} cannot be read: {place}: {first['msg']}. Make it anew: dvc repro --force {made_by}"
        ) from None


def read_records(path: Path, kind: type[Record], *, made_by: str) -> list[Record]:
    """Read JSON lines; an absent file or a broken line is a PipelineError that names the line and the stage."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PipelineError(f"{path} is not there. Run: dvc repro {made_by}") from None
    # str.splitlines would also split inside a caption that holds U+2028 or another rare separator.
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(kind.model_validate_json(line))
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise PipelineError(f"{path}:{number}: {message}. Make it anew: dvc repro --force {made_by}") from None
    return records


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def empty_folder(folder: Path) -> Path:
    """Remove `folder` with all it holds, make it anew and return it: a stage starts from nothing of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
