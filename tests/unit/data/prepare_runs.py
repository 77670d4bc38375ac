"""Runs the prepare stage in a folder of its own, as a function or as the command that DVC calls."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from loupe.atomic_io import read_record, read_records
from loupe.params import load_params
from loupe.paths import SPLITS, ProjectPaths
from loupe.records import CaptionRecord, DatasetManifest
from loupe.workstore import WorkStore
from stages.prepare import prepare

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Project:
    """A folder with a params.yaml; `source` is where a test puts its photos."""

    root: Path

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def paths(self) -> ProjectPaths:
        return ProjectPaths(self.root)

    def configure(self, *, split: dict[str, Any] | None = None, **data: Any) -> None:
        """Write the repository's params.yaml with these values of `data` and `data.split` changed."""
        params = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        params["data"] |= {"source": "kaggle-fashion", "root": "source", "resolution": 64, **data}
        params["data"]["split"] |= split or {}
        with (self.root / "params.yaml").open("w", encoding="utf-8") as file:
            YAML().dump(params, file)

    def run(self) -> DatasetManifest:
        prepare(load_params(self.root / "params.yaml"), self.paths, WorkStore(self.root / ".work"))
        return self.manifest()

    def started(self) -> subprocess.Popen[bytes]:
        """Start the stage and return at once."""
        return subprocess.Popen(
            [sys.executable, "-m", "stages.prepare"],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def command(self, *, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "stages.prepare"],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def manifest(self) -> DatasetManifest:
        return read_record(self.paths.dataset / "manifest.json", DatasetManifest, made_by="prepare")

    def records(self) -> list[CaptionRecord]:
        files = [self.paths.dataset / split / "captions.jsonl" for split in SPLITS]
        return [record for file in files for record in read_records(file, CaptionRecord, made_by="prepare")]

    def contents(self) -> dict[str, bytes]:
        """Every file of the dataset by its relative name."""
        folder = self.paths.dataset
        return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
