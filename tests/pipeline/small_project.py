"""A copy of the repository in a folder of its own, with parameters small enough to run the whole line in a minute."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from loupe.atomic_io import sha256_file
from loupe.paths import step_name

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "data": {"demo_items": 120},
    "train": {
        "max_steps": 4,
        "checkpoint_every": 2,
        "batch_size": 4,
        "lr_warmup_steps": 1,
        "validation_timesteps": 8,
        "preview_prompts": 0,
    },
    "generate": {
        "prompts": {"red_shoes": "a photo of red casual shoes", "blue_shoes": "a photo of blue casual shoes"},
        "val_captions": 2,
        "seeds_per_prompt": 2,
        "num_inference_steps": 3,
        "batch_size": 4,
    },
    "evaluate": {"null_draws": 4, "bootstrap_draws": 100},
    "confirm": {"test_captions": 2, "seeds_per_prompt": 2},
}


@dataclass(frozen=True)
class SmallProject:
    """One copy; its commands run as a user's would."""

    root: Path

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.root, env=self.environment(), capture_output=True, text=True, check=False, timeout=900
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def environment(self) -> dict[str, str]:
        identity = {
            f"GIT_{who}_{what}": f"loupe@{who.lower()}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {k: v for k, v in os.environ.items() if k not in ("DVC_ROOT", "PYTHONPATH")}
        return {**kept, **identity, "PATH": path, "HF_HUB_OFFLINE": "1"}

    def repro(self, *arguments: str) -> str:
        done = self.run("dvc", "repro", *arguments)
        return done.stdout + done.stderr

    def params(self) -> dict[str, Any]:
        return YAML(typ="safe").load((self.root / "params.yaml").read_text(encoding="utf-8"))

    def change(self, section: str, **values: Any) -> None:
        params = self.params()
        params[section] = {**params[section], **values}
        with (self.root / "params.yaml").open("w", encoding="utf-8") as file:
            YAML().dump(params, file)

    def adapter_sha256(self, step: int) -> str:
        return sha256_file(self.root / "data" / "checkpoints" / step_name(step) / "adapter_model.safetensors")

    def counts(self) -> dict[str, tuple[int, int]]:
        """Latest (computed, reused) per stage."""
        lines = (self.root / ".work" / "counts.jsonl").read_text(encoding="utf-8").splitlines()
        return {c["stage"]: (c["computed"], c["reused"]) for c in map(json.loads, lines)}


def make_small_project(folder: Path) -> SmallProject:
    """Copy the tracked and new files of the repository, shrink params.yaml and commit."""
    project = SmallProject(folder)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if name in ("dvc.lock",) or name.startswith("metrics/") or not (ROOT / name).is_file():
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    for section, values in SMALL.items():
        project.change(section, **values)
    project.run("git", "init", "-q", "-b", "main")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "start")
    return project
