"""Which project folder this server shows, and the one reader of it. It reads no result itself."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from loupe.run_store import RunStore

_STARTED_IN = Path.cwd()
"""DVC changes the folder of the whole process while it lists experiments, so it is asked for once."""


def project_root() -> Path:
    """Return the folder that $LOUPE_PROJECT names, or else the one that the server was started in."""
    return (_STARTED_IN / os.environ.get("LOUPE_PROJECT", "")).resolve()


@lru_cache(maxsize=8)
def store_of(root: Path) -> RunStore:
    """Return the reader of a project folder; pages and image route share it, so each file is read once."""
    return RunStore(root)


def current_store() -> RunStore:
    """Return the reader of the project that is shown."""
    return store_of(project_root())
