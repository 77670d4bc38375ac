"""Writes a project that is prepared, with a few plain-coloured images, so that encode and train can run on it."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from loupe.atomic_io import sha256_file, write_bytes, write_record, write_records
from loupe.params import load_params
from loupe.paths import ProjectPaths
from loupe.records import CaptionRecord, DatasetManifest
from loupe.workstore import WorkStore
from stages.encode import encode
from tests.tiny_models import TINY_SIDE_PX

REPOSITORY = Path(__file__).resolve().parents[3]
QUICK = {"validation_timesteps": 8, "preview_prompts": 0}
"""Less to measure and nothing to draw at a checkpoint."""
COLOURS = {"red": (200, 20, 20), "blue": (20, 20, 200), "green": (20, 160, 20), "black": (10, 10, 10)}


def write_tiny_project(root: Path, *, base: Path, n_train: int = 6, n_val: int = 2, train: dict | None = None) -> Path:
    """Write params.yaml (the repository's, with this base model and `train` overrides) and data/dataset."""
    write_params(root, base=base, train=train or {})
    captions_sha256 = {}
    for split, count in (("train", n_train), ("val", n_val), ("test", 1)):
        records = [_write_image(root / "data" / "dataset", split, index) for index in range(count)]
        file = root / "data" / "dataset" / split / "captions.jsonl"
        write_records(file, records)
        captions_sha256[split] = sha256_file(file)
    manifest = DatasetManifest(
        source="pairs",
        resolution_px=TINY_SIDE_PX,
        seed=0,
        n_rows=n_train + n_val + 1,
        n_selected=n_train + n_val + 1,
        n_missing=0,
        missing_ids=(),
        n_examples={"train": n_train, "val": n_val, "test": 1},
        malformed_rows=(),
        rejected=(),
        findings=(),
        attribute_counts={},
        captions_sha256=captions_sha256,
    )
    write_record(root / "data" / "dataset" / "manifest.json", manifest)
    return root


def write_encoded_project(root: Path, *, base: Path, **options: Any) -> Path:
    """Write a project as write_tiny_project does, and encode it on the CPU."""
    write_tiny_project(root, base=base, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOUPE_DEVICE", "cpu")
        patch.delenv("DVC_ROOT", raising=False)
        patch.chdir(root)
        encode(load_params(root / "params.yaml"), ProjectPaths(root), WorkStore(ProjectPaths(root).work))
    return root


def write_params(root: Path, *, base: Path, train: dict) -> None:
    yaml = YAML()
    params = yaml.load((REPOSITORY / "params.yaml").read_text())
    params["model"].update(base=str(base), revision=None)
    params["data"]["resolution"] = TINY_SIDE_PX
    small = {"max_steps": 6, "checkpoint_every": 2, "lr_warmup_steps": 2, "batch_size": 4, "rank": 2, "alpha": 4}
    params["train"].update({**small, **QUICK, **train})
    root.mkdir(parents=True, exist_ok=True)
    with (root / "params.yaml").open("w") as file:
        yaml.dump(params, file)


def run_stage_of(root: Path, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a stage as DVC does, in its own process."""
    return subprocess.run(
        [sys.executable, "-m", f"stages.{name}"],
        cwd=root,
        env=stage_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
    )


def stage_environment(**environment: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key != "DVC_ROOT"}
    return {**inherited, "PYTHONPATH": str(REPOSITORY), "LOUPE_DEVICE": "cpu", "OMP_NUM_THREADS": "1", **environment}


def _write_image(dataset: Path, split: str, index: int) -> CaptionRecord:
    name = list(COLOURS)[index % len(COLOURS)]
    pixels = np.full((TINY_SIDE_PX, TINY_SIDE_PX, 3), 255, np.uint8)
    side = 24 + 2 * index
    pixels[8 : 8 + side, 8 : 8 + side] = COLOURS[name]
    image_id = f"{split}{index}"
    file = f"{split}/images/{image_id}.png"
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    write_bytes(dataset / file, buffer.getvalue())
    return CaptionRecord(
        image_id=image_id,
        split=split,
        file=file,
        caption=f"a photo of {name} shoes",
        sha256=sha256_file(dataset / file),
        source_width_px=TINY_SIDE_PX,
        source_height_px=TINY_SIDE_PX,
        attributes={"colour": name},
    )
