"""Puts the trained parts together as data/demo, with kit.json: settings, versions, losses, durations and hashes."""

import csv
import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from loupe.atomic_io import sha256_file, write_json
from loupe.demo.kit.base import build_tokenizer, save_base
from loupe.demo.kit.bpe import Merge
from loupe.demo.kit.latents import scaling_factor
from loupe.demo.kit.settings import KitSettings
from loupe.errors import PipelineError

LIBRARIES = ("torch", "diffusers", "transformers", "open-clip-torch", "peft", "numpy", "pillow", "safetensors")
MAX_BYTES = 30_000_000
LOGS = ("vae.csv", "unet.csv", "decoder.csv", "clip.csv", "classifier.csv")
PARTS = ("vae-refined", "text_encoder", "unet", "clip", "classifier", "latents.safetensors")


def _last_row(path: Path) -> dict[str, float]:
    with path.open(newline="", encoding="utf-8") as file:
        return {name: float(value) for name, value in list(csv.DictReader(file))[-1].items()}


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder` but kit.json, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "kit.json")
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def _copy_base(work: Path, target: Path, merges: list[Merge]) -> None:
    vae = AutoencoderKL.from_pretrained(work / "vae-refined")
    vae.register_to_config(scaling_factor=scaling_factor(work))
    save_base(
        target,
        vae=vae,
        text_encoder=CLIPTextModel.from_pretrained(work / "text_encoder"),
        tokenizer=build_tokenizer(merges),
        unet=UNet2DConditionModel.from_pretrained(work / "unet"),
    )


def kit_record(folder: Path, settings: KitSettings, checks: dict[str, Any]) -> dict[str, Any]:
    """The contents of kit.json for a finished folder."""
    last = {path.stem: _last_row(path) for path in sorted((folder / "training").glob("*.csv"))}
    return {
        "settings": settings.to_json(),
        "libraries": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "final_losses": {
            name: {k: v for k, v in row.items() if k not in ("step", "seconds")} for name, row in last.items()
        },
        "steps": {name: int(row["step"]) for name, row in last.items()},
        "duration_s": {name: row["seconds"] for name, row in last.items()},
        "checks": checks,
        "sha256": hashes(folder),
    }


def install(work: Path, out: Path, *, merges: list[Merge], settings: KitSettings) -> None:
    """Build the kit beside `out` and swap it in as a whole.

    Raises PipelineError if a part is not trained yet or if the kit is over MAX_BYTES.
    """
    missing = [name for name in (*PARTS, *LOGS) if not (work / name).exists()]
    if missing:
        raise PipelineError(f"not trained yet: {', '.join(missing)}. Run the kit's stages in order, or --stage all")
    fresh = out.with_name(f".{out.name}-new")
    shutil.rmtree(fresh, ignore_errors=True)
    _copy_base(work, fresh / "base", merges)
    for part in ("clip", "classifier"):
        shutil.copytree(work / part, fresh / part)
    (fresh / "training").mkdir()
    for name in LOGS:
        shutil.copyfile(work / name, fresh / "training" / name)
    size = sum(path.stat().st_size for path in fresh.rglob("*") if path.is_file())
    if size > MAX_BYTES:
        raise PipelineError(f"the kit has {size:,} bytes, at most {MAX_BYTES:,} are allowed: make the networks smaller")
    write_json(fresh / "kit.json", kit_record(fresh, settings, {}))
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)


def store_checks(out: Path, checks: dict[str, Any]) -> None:
    """Put measured numbers into kit.json."""
    record = json.loads((out / "kit.json").read_text(encoding="utf-8"))
    write_json(out / "kit.json", record | {"checks": checks})
