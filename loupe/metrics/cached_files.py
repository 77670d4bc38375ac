"""Whether a file of the Hugging Face cache still is what was downloaded. It downloads and loads nothing."""

from __future__ import annotations

import re
from pathlib import Path

from loupe.errors import PipelineError

HASH = re.compile(r"[0-9a-f]{64}")


def is_cached_file(path: Path, sha256: str) -> bool:
    """Whether a file of the Hugging Face cache is the one that was downloaded: the cache names it by its SHA-256.

    False where the cache keeps no such name (no symbolic links). Raises PipelineError when the name says otherwise.
    """
    stored = path.resolve().name
    if not HASH.fullmatch(stored):
        return False
    if stored != sha256:
        raise PipelineError(
            f"{path} is not what was downloaded: its SHA-256 is {sha256}, expected {stored}. An altered network must "
            "not score under its name. Delete the file and download it again."
        )
    return True
