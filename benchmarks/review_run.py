"""Runs to review: as many drawn pictures as asked for, with manifests, scores and curves that fit them.

The pictures are drawings; nothing is trained or measured, and the scores are made up (tests/run_parts.py).
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from loupe.atomic_io import write_record
from loupe.paths import ProjectPaths
from loupe.records import SampleRecord, SamplesManifest
from tests.run_parts import (
    samples_manifest,
    write_ends,
    write_evaluation,
    write_lock,
    write_params,
    write_prepared,
    write_selection,
)
from tests.run_shape import Shape, paint_shoe, prompts_of
from tests.run_training_parts import write_checkpoints, write_telemetry, write_validation

GRAIN = 3.0
"""Standard deviation of the noise on drawings that shall weigh what generated photos weigh (about 0.3 MB at 512 px)."""
Encoder = Callable[[str, int, int], bytes]
"""(colour, seed index, step) -> PNG"""


def write_review_run(root: Path, shape: Shape, *, grainy: bool) -> Path:
    """Write a complete run; `grainy` pictures are as large as photos, the others a few kB and quick to write.

    Pictures that are there from an earlier call are kept.
    """
    write_params(root, shape)
    write_prepared(root, shape)
    write_checkpoints(root, shape)
    write_validation(root, shape)
    write_telemetry(root, shape)
    if not (ProjectPaths(root).samples / "manifest.json").is_file():
        _write_pictures(root, shape, _grainy(shape) if grainy else _plain(shape))
    write_evaluation(root, shape)
    write_selection(root, shape)
    write_ends(root, shape)
    write_lock(root)
    return root


def without_last_checkpoint(manifest: SamplesManifest) -> SamplesManifest:
    """Return what the manifest was before its last checkpoint was drawn."""
    last = manifest.steps[-1]
    samples = tuple(sample for sample in manifest.samples if sample.step != last)
    return manifest.model_copy(update={"steps": manifest.steps[:-1], "samples": samples})


def _write_pictures(root: Path, shape: Shape, encoded: Encoder) -> None:
    folder = ProjectPaths(root).samples
    records = []
    for record, content in _pictures(shape, encoded):
        file = folder / str(record.file)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        records.append(record)
    write_record(folder / "manifest.json", samples_manifest(shape, records))


def _pictures(shape: Shape, encoded: Encoder) -> Iterator[tuple[SampleRecord, bytes]]:
    for prompt in prompts_of(shape):
        for seed_index in range(shape.seeds):
            for step in shape.all_steps:
                file = f"{prompt.prompt_id}-{seed_index}/{step:06d}.png"
                content = _signed(encoded(prompt.colour or "yellow", seed_index, step), file)
                yield (
                    SampleRecord(
                        prompt_id=prompt.prompt_id, seed_index=seed_index, seed=1_000_000 + seed_index, step=step,
                        file=file, sha256=hashlib.sha256(content).hexdigest(), invalid_reason=None,
                    ),
                    content,
                )  # fmt: skip


def _plain(shape: Shape) -> Encoder:
    known: dict[tuple[str, int, int], bytes] = {}

    def encoded(colour: str, seed_index: int, step: int) -> bytes:
        key = (colour, seed_index, step)
        if key not in known:
            known[key] = _png(paint_shoe(colour, seed_index, step / shape.steps[-1], shape.size_px))
        return known[key]

    return encoded


def _grainy(shape: Shape) -> Encoder:
    side = shape.size_px
    rng = np.random.default_rng(0)
    grain = rng.normal(0, GRAIN, (2 * side, 2 * side, 3))

    def encoded(colour: str, seed_index: int, step: int) -> bytes:
        drawing = np.asarray(paint_shoe(colour, seed_index, step / shape.steps[-1], side), dtype=np.float64)
        top, left = rng.integers(0, side, 2)
        noisy = np.clip(drawing + grain[top : top + side, left : left + side], 0, 255)
        return _png(Image.fromarray(noisy.astype(np.uint8)))

    return encoded


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _signed(png: bytes, name: str) -> bytes:
    """Return the picture with its name as a comment: no two files of a run may be the same bytes."""
    chunk = b"tEXtComment\x00" + name.encode("ascii")
    return png[:-12] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[-12:]
