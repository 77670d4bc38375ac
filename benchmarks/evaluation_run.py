"""A run to evaluate: drawn pictures and photos, and stand-ins for the two networks. For bench_evaluate.py.

Every picture is a drawn block of colour with noise, 128 px. The stand-ins project its pixels at random onto features of
the shapes that Inception (2048 features, 1008 logits) and ViT-B-32 (512) give; they mean nothing and cost little, so
what is measured is what `evaluate` does with features.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loupe.atomic_io import sha256_file, write_csv, write_json, write_record, write_records
from loupe.metrics.clip import ClipNetwork
from loupe.metrics.demo_classifier import demo_colours
from loupe.metrics.images import Pixels
from loupe.params import load_params
from loupe.paths import ProjectPaths
from loupe.records import (
    BaseModelInfo,
    CaptionRecord,
    DatasetManifest,
    PromptRecord,
    SampleRecord,
    SamplesManifest,
)
from loupe.train_records import ValidationRow, ValidationTimestepRow
from tests.run_training_parts import checkpoints_of

ROOT = Path(__file__).resolve().parents[1]
SIDE_PX = 128
CELL_PX = 8
N_FEATURES, N_LOGITS, N_CLIP = 2048, 1008, 512
N_PHOTOS = {"train": 1991, "val": 427}
COLOURS = {"Red": (200, 30, 30), "Blue": (30, 60, 200), "Green": (30, 150, 60), "Black": (30, 30, 34)}
BASE_MODEL = BaseModelInfo(
    name="drawn", revision=None, sha256="0" * 64, prediction_type="epsilon", latent_channels=4, scaling_factor=1.0,
    sample_size_px=SIDE_PX,
)  # fmt: skip


def write_photos_and_scorers(root: Path) -> None:
    """Write data/dataset as `prepare` leaves it, with as many photos as the published split has, and data/demo."""
    paths = ProjectPaths(root)
    for scorer in ("classifier", "clip"):
        shutil.copytree(ProjectPaths(ROOT).demo / scorer, paths.demo / scorer)
    captions_sha256 = {}
    for split, count in N_PHOTOS.items():
        (paths.dataset / split / "images").mkdir(parents=True)
        records = [_photo(paths.dataset, split, index) for index in range(count)]
        write_records(paths.dataset / split / "captions.jsonl", records)
        captions_sha256[split] = sha256_file(paths.dataset / split / "captions.jsonl")
    manifest = DatasetManifest(
        source="demo", resolution_px=SIDE_PX, seed=1, n_rows=sum(N_PHOTOS.values()),
        n_selected=sum(N_PHOTOS.values()), n_missing=0, missing_ids=(), n_examples={**N_PHOTOS, "test": 0},
        malformed_rows=(), rejected=(), findings=(), attribute_counts={}, captions_sha256=captions_sha256,
    )  # fmt: skip
    write_record(paths.dataset / "manifest.json", manifest)


def write_params(root: Path, *, n_prompts: int, seeds: int) -> None:
    """Write params.yaml: the repository's own, but for the prompts, whose number decides the N of the nulls."""
    document = load_params(ROOT / "params.yaml").model_dump()
    texts = {prompt.prompt_id: prompt.text for prompt in _prompts(n_prompts)}
    document["generate"].update(prompts=texts, val_captions=0, seeds_per_prompt=seeds)
    write_json(root / "params.yaml", document)  # JSON is YAML


def write_samples(root: Path, *, n_checkpoints: int, n_prompts: int, seeds: int) -> None:
    """Write data/samples of base model and checkpoints and metrics/validation.csv; a picture that is there stays."""
    paths = ProjectPaths(root)
    steps = tuple(range(0, 100 * n_checkpoints + 1, 100))
    prompts = _prompts(n_prompts)
    samples = [
        _sample(paths.samples, prompt, index, step, rank / n_checkpoints)
        for prompt in prompts
        for index in range(seeds)
        for rank, step in enumerate(steps)
    ]
    manifest = SamplesManifest(
        base_model=BASE_MODEL, checkpoints_fingerprint="drawn", steps=steps, prompts=prompts, seeds_per_prompt=seeds,
        samples=tuple(samples), width_px=SIDE_PX, height_px=SIDE_PX, guidance_scale=1.0, num_inference_steps=1,
        negative_prompt="", sampler="drawn",
    )  # fmt: skip
    write_record(paths.samples / "manifest.json", manifest)
    write_record(paths.checkpoints / "manifest.json", checkpoints_of(manifest))
    losses = [{"step": step, "val_loss": 0.5, "n_images": N_PHOTOS["val"]} for step in steps]
    write_csv(paths.metrics / "validation.csv", list(ValidationRow.model_fields), losses)
    write_csv(paths.metrics / "validation_timesteps.csv", list(ValidationTimestepRow.model_fields), [])


@contextmanager
def stand_in_networks() -> Iterator[None]:
    """Let the stages load the stand-ins in place of the demo's networks."""
    with (
        patch("loupe.metrics.extractors.load_demo_classifier", _load_features),
        patch("loupe.metrics.extractors.load_clip", _load_clip),
    ):
        yield


@contextmanager
def no_networks() -> Iterator[None]:
    """Let the stages fail where they would load a network: all features must be in the store."""

    def refuse(*_: object) -> None:
        raise SystemExit("a network was asked for, although every feature should be in the work store")

    with (
        patch("loupe.metrics.extractors.load_demo_classifier", refuse),
        patch("loupe.metrics.extractors.load_clip", refuse),
    ):
        yield


def _prompts(count: int) -> tuple[PromptRecord, ...]:
    names = list(COLOURS)
    return tuple(
        PromptRecord(prompt_id=f"p{i:03d}", text=f"drawing {i} of {names[i % 4]} shoes", colour=names[i % 4])
        for i in range(count)
    )


def _photo(dataset: Path, split: str, index: int) -> CaptionRecord:
    colour = list(COLOURS)[index % 4]
    file = f"{split}/images/{index:04d}.png"
    seed = (list(N_PHOTOS).index(split), index)
    _draw(dataset / file, COLOURS[colour], background=255, seed=seed)
    return CaptionRecord(
        image_id=f"{index:04d}", split=split, file=file, caption=f"photo {index % 64} of {colour} shoes",
        sha256=sha256_file(dataset / file), source_width_px=SIDE_PX, source_height_px=SIDE_PX,
        attributes={"colour": colour},
    )  # fmt: skip


def _sample(folder: Path, prompt: PromptRecord, seed_index: int, step: int, near: float) -> SampleRecord:
    """Draw a picture that comes nearer to the photos with every step: the background whitens, the colour gets right."""
    number = int(prompt.prompt_id[1:])
    path = folder / f"{prompt.prompt_id}-{seed_index}" / f"{step}.png"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        asked = near * np.array(COLOURS[prompt.colour or "Red"]) + (1 - near) * np.array([120, 110, 90])
        _draw(path, asked, background=int(200 + 55 * near), seed=(7, number, seed_index, step))
    return SampleRecord(
        prompt_id=prompt.prompt_id, seed_index=seed_index, seed=1000 * number + seed_index, step=step,
        file=path.relative_to(folder).as_posix(), sha256=sha256_file(path), invalid_reason=None,
    )  # fmt: skip


def _draw(path: Path, colour: Sequence[float] | NDArray, *, background: int, seed: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    pixels = np.full((SIDE_PX, SIDE_PX, 3), background, dtype=np.float64)
    top, left = rng.integers(24, 44, 2)
    height, width = rng.integers(48, 60, 2)
    shade = rng.normal(0, 12, (height // 2 + 1, width // 2 + 1, 3)).repeat(2, axis=0).repeat(2, axis=1)
    pixels[top : top + height, left : left + width] = np.asarray(colour) + shade[:height, :width]
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, compress_level=1)


def _load_features(folder: Path, _device: str) -> Callable[[Sequence[Pixels]], Mapping[str, NDArray]]:
    n_colours = len(demo_colours(folder))
    project = _projection(1, N_FEATURES + N_LOGITS + n_colours)

    def extract(images: Sequence[Pixels]) -> Mapping[str, NDArray]:
        found = project(_cells(images))
        features, logits, colours = np.split(found, [N_FEATURES, N_FEATURES + N_LOGITS], axis=1)
        return {"features": np.maximum(features, 0), "logits": logits, "colour_logits": colours}

    return extract


def _load_clip(_source: object, _device: str) -> ClipNetwork:
    project = _projection(2, N_CLIP)

    def texts(batch: Sequence[str]) -> Mapping[str, NDArray]:
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in batch]
        rows = np.stack([np.random.default_rng(seed).normal(size=N_CLIP) for seed in seeds]).astype(np.float32)
        return {"text": rows, "n_tokens": np.full(len(batch), 9), "context_length": np.full(len(batch), 77)}

    return ClipNetwork(images=lambda batch: {"image": project(_cells(batch))}, texts=texts)


def _cells(images: Sequence[Pixels]) -> NDArray[np.float32]:
    """Return [B, 768]: mean colours of 8 x 8 pixels."""
    n = SIDE_PX // CELL_PX
    small = np.stack(images).reshape(len(images), n, CELL_PX, n, CELL_PX, 3).mean(axis=(2, 4))
    return (small.reshape(len(images), -1) / 255 - 0.5).astype(np.float32)


def _projection(seed: int, width: int) -> Callable[[NDArray], NDArray[np.float32]]:
    n_inputs = 3 * (SIDE_PX // CELL_PX) ** 2
    weights = np.random.default_rng(seed).normal(0, n_inputs**-0.5, (n_inputs, width)).astype(np.float32)
    return lambda inputs: inputs @ weights
