"""The content-addressed work store: finished pieces of work under a fingerprint of everything that decided their bytes.

It lives outside DVC's outputs, which DVC deletes before a stage runs, so incrementality and crash resume survive. It
decides nothing about what belongs into a fingerprint: a caller who leaves something out gets a wrong reuse.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loupe.atomic_io import atomic_path, sha256_file
from loupe.file_lock import hold


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of `parts` as canonical JSON.

    Only JSON values are taken (a Path or a tensor raises TypeError, NaN raises ValueError): a fingerprint must never
    depend on how an object happens to print itself.
    """
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def source_fingerprint(*paths: Path) -> str:
    """Return a hash of the Python source under `paths` (files or folders): code that decides bytes belongs in a key."""
    hashes = {}
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            hashes[f"{path.name}/{file.relative_to(path).as_posix()}"] = sha256_file(file)
    return fingerprint(hashes)


def library_versions(*names: str) -> dict[str, str]:
    """Return the installed version of each named distribution, e.g. {'torch': '2.15.0'}."""
    return {name: version(name) for name in names}


def remove_entry(path: Path) -> None:
    """Remove what has an entry's name, be it a folder: one in its place would keep the entry from being stored."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class WorkStore:
    """Files and folders under `root/<kind>/<first two digits>/<fingerprint>`; `kind` names the sort of work."""

    root: Path

    def path(self, kind: str, key: str, suffix: str = "") -> Path:
        """Return where the entry lies or would lie; `suffix` such as '.png' belongs to the name."""
        return self.root / kind / key[:2] / f"{key}{suffix}"

    def get(self, kind: str, key: str, suffix: str = "") -> Path | None:
        """Return the entry's path, or None when it has not been stored."""
        path = self.path(kind, key, suffix)
        return path if path.exists() else None

    @contextmanager
    def put(self, kind: str, key: str, suffix: str = "") -> Iterator[Path]:
        """Yield a temporary file to write; it becomes the entry when the block ends without an exception."""
        with atomic_path(self.path(kind, key, suffix)) as temporary:
            yield temporary

    def lock(self, kind: str, key: str, *, waits: bool = True) -> AbstractContextManager[None]:
        """Return the context that holds the entry alone (see `file_lock.hold`)."""
        busy = f"Another process works on {kind} {key[:12]}"
        return hold(self.path(kind, key, ".lock"), busy=busy, waits=waits)


def copy_file(source: Path, target: Path) -> None:
    """Copy a finished entry to `target` atomically."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
