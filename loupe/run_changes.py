"""Whether anything that the pages show has changed on disk: by names, sizes and times of change. It opens no file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from loupe.paths import ProjectPaths
from loupe.run_files import signature, signatures


def run_fingerprint(paths: ProjectPaths) -> str:
    """Return a value that changes when a result does; cheap enough to ask every second, with thousands of pictures."""
    single = [(path.name, signature(path)) for path in _watched(paths)]
    listed = [signatures(folder) for folder in (paths.metrics, paths.samples)]
    return hashlib.sha256(repr((single, listed)).encode()).hexdigest()


def _watched(paths: ProjectPaths) -> Iterator[Path]:
    root = paths.root
    yield from (root / "params.yaml", root / "dvc.lock", root / ".dvc" / "tmp" / "rwlock", paths.samples)
    yield from (paths.train_telemetry, paths.previews / "manifest.json")
    for folder in ("dataset", "latents", "reference", "checkpoints", "evaluation", "confirmation", "export"):
        yield root / "data" / folder
        yield root / "data" / folder / "manifest.json"
