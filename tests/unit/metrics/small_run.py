"""A project folder with demo scorers of toy weights, real photos and samples, for tests of the evaluation stages.

The weights are random with every normalisation layer moved, so they count as trained; their scores mean nothing.
"""

from __future__ import annotations

import gzip
import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from loupe.atomic_io import sha256_file, write_csv, write_json, write_record, write_records
from loupe.metrics.classifier import ProductClassifier
from loupe.params import Params, load_params
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

ROOT = Path(__file__).resolve().parents[3]
COLOURS = {"Red": (200, 30, 30), "Blue": (30, 60, 200), "Green": (30, 150, 60)}
SIZE_PX = 64
ENDS = {"": 0.0, "_lo": -0.005, "_hi": 0.005}
CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": SIZE_PX, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 515, "width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {
        "size": [SIZE_PX, SIZE_PX], "mode": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}  # fmt: skip
BASE_MODEL = BaseModelInfo(
    name="toy", revision=None, sha256="0" * 64, prediction_type="epsilon", latent_channels=4, scaling_factor=1.0,
    sample_size_px=SIZE_PX,
)  # fmt: skip


def moved(state: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Add a little noise to every weight, so that no normalisation layer is as it was created."""
    generator = torch.Generator().manual_seed(seed)
    return {k: (v + 0.05 * torch.randn(v.shape, generator=generator)).contiguous() for k, v in state.items()}


def write_toy_classifier(folder: Path, *, trained: bool = True) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ProductClassifier(article_types=("Casual Shoes", "Handbags"), colours=tuple(COLOURS))
    state = network.state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(moved(state, 1) if trained else state, folder / "model.safetensors")
    write_json(folder / "config.json", {"article_types": network.article_types, "colours": network.colours})


def write_toy_clip(folder: Path, *, trained: bool = True) -> None:
    from open_clip.model import CLIP

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = CLIP(**CLIP_CONFIG["model_cfg"]).state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(moved(state, 2) if trained else state, folder / "open_clip_model.safetensors")
    write_json(folder / "open_clip_config.json", CLIP_CONFIG)
    with gzip.GzipFile(folder / "bpe.txt.gz", "wb", mtime=0) as file:
        file.write(b"#version: 0.2\nr e")


def picture(colour: tuple[int, int, int], background: int, seed: int) -> Image.Image:
    """A noisy block of colour on a grey level: enough for features to differ."""
    rng = np.random.default_rng(seed)
    pixels = np.full((SIZE_PX, SIZE_PX, 3), background, dtype=np.float64)
    top, left = rng.integers(12, 24, 2)
    pixels[top : top + 28, left : left + 28] = np.asarray(colour) + rng.normal(0, 12, (28, 28, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def toy_images(count: int = 5) -> list[np.ndarray]:
    """Pictures of every colour, uint8 [H, W, 3]."""
    colours = list(COLOURS.values())
    return [np.array(picture(colours[i % 3], 255, i)) for i in range(count)]


def write_dataset(folder: Path, n_photos: dict[str, int]) -> None:
    captions_sha256 = {}
    for split_index, (split, count) in enumerate(n_photos.items()):
        records = []
        (folder / split / "images").mkdir(parents=True)
        for index in range(count):
            colour = list(COLOURS)[index % len(COLOURS)]
            file = f"{split}/images/{index:04d}.png"
            picture(COLOURS[colour], 255, 10_000 * split_index + index).save(folder / file)
            records.append(
                CaptionRecord(
                    image_id=f"{index:04d}",
                    split=split,
                    file=file,
                    caption=f"photo {index % 5} of {colour} shoes",
                    sha256=sha256_file(folder / file),
                    source_width_px=80,
                    source_height_px=60,
                    attributes={"colour": colour},
                )
            )
        write_records(folder / split / "captions.jsonl", records)
        captions_sha256[split] = sha256_file(folder / split / "captions.jsonl")
    write_record(
        folder / "manifest.json",
        DatasetManifest(
            source="demo",
            resolution_px=SIZE_PX,
            seed=1,
            n_rows=100,
            n_selected=100,
            n_missing=0,
            missing_ids=(),
            n_examples=n_photos,
            malformed_rows=(),
            rejected=(),
            findings=(),
            attribute_counts={},
            captions_sha256=captions_sha256,
        ),
    )


def write_samples(folder: Path, *, steps: tuple[int, ...], prompts: dict[str, str], seeds: int) -> SamplesManifest:
    """Pictures that come nearer to the photos with every step: the background whitens, the colour becomes right."""
    samples, colours = [], list(COLOURS)
    for prompt_index, prompt_id in enumerate(prompts):
        for seed_index in range(seeds):
            for rank, step in enumerate(steps):
                seed = 1000 * prompt_index + seed_index
                near = rank / max(1, len(steps) - 1)
                asked = np.asarray(COLOURS[colours[prompt_index % len(colours)]])
                colour = tuple(near * asked + (1 - near) * np.array([120, 110, 90]))
                file = f"{prompt_id}-{seed_index}/{step}.png"
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                picture(colour, int(150 + 105 * near), 77_000 + seed).save(folder / file)
                samples.append(
                    SampleRecord(
                        prompt_id=prompt_id,
                        seed_index=seed_index,
                        seed=seed,
                        step=step,
                        file=file,
                        sha256=sha256_file(folder / file),
                        invalid_reason=None,
                    )
                )
    manifest = SamplesManifest(
        base_model=BASE_MODEL, checkpoints_fingerprint="f", steps=steps,
        prompts=tuple(
            PromptRecord(prompt_id=p, text=text, colour=colours[i % len(colours)])
            for i, (p, text) in enumerate(prompts.items())
        ),
        seeds_per_prompt=seeds, samples=tuple(samples), width_px=SIZE_PX, height_px=SIZE_PX, guidance_scale=1.0,
        num_inference_steps=1, negative_prompt="", sampler="toy",
    )  # fmt: skip
    write_record(folder / "manifest.json", manifest)
    write_record(folder.parent / "checkpoints" / "manifest.json", checkpoints_of(manifest))
    return manifest


def write_validation(path: Path, steps: tuple[int, ...]) -> None:
    """Losses 0.5, 0.49, 0.48 ... with an interval of 0.01 around the difference to base."""
    rows = [
        {"step": step, "val_loss": 0.5 - 0.01 * rank, "n_images": 12}
        | ({} if not rank else {f"val_loss_diff_base{end}": -0.01 * rank + by for end, by in ENDS.items()})
        for rank, step in enumerate(steps)
    ]
    write_csv(path, list(ValidationRow.model_fields), rows)
    at_timesteps = [
        {"step": step, "timestep": timestep, "loss": 0.5 - 0.01 * rank + timestep / 1e4}
        for rank, step in enumerate(steps)
        for timestep in (500, 100)
    ]
    write_csv(path.with_name("validation_timesteps.csv"), list(ValidationTimestepRow.model_fields), at_timesteps)


def small_params(**sections: dict) -> Params:
    document = load_params(ROOT / "params.yaml").model_dump()
    document["evaluate"].update(null_draws=8, bootstrap_draws=200, batch_size=16)
    for section, values in sections.items():
        document[section].update(values)
    return Params.model_validate(document)


def toy_prompts(count: int) -> dict[str, str]:
    return {f"p{i}": f"photo of {list(COLOURS)[i % len(COLOURS)]} shoes {i}" for i in range(count)}


def make_small_run(
    root: Path,
    *,
    steps: tuple[int, ...] = (0, 10, 20, 30),
    n_prompts: int = 6,
    seeds: int = 2,
    n_photos: dict[str, int] | None = None,
) -> None:
    paths = ProjectPaths(root)
    write_toy_classifier(paths.demo / "classifier")
    write_toy_clip(paths.demo / "clip")
    write_dataset(paths.dataset, n_photos or {"train": 24, "val": 12, "test": 12})
    write_samples(paths.samples, steps=steps, prompts=toy_prompts(n_prompts), seeds=seeds)
    write_validation(paths.metrics / "validation.csv", steps)


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def inside(folder: Path):
    """Run with `folder` as the working directory, as a stage does."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
