"""One side of the comparison: Loupe encodes the photos and trains, in a process of its own. Started by bench_train.py.

Timed are encoding (images and captions) and the training loop with its stores of the state; not imports, nor the
loading of weights, which both sides do alike.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from benchmarks.photos import METADATA
from loupe.atomic_io import sha256_file
from loupe.diffusion import latent_files, train_run
from loupe.diffusion.adapter import AdapterConfig
from loupe.diffusion.base_model import base_model_info
from loupe.diffusion.device import DevicePolicy, choose_device, device_identity, make_repeatable
from loupe.diffusion.latent_files import Examples
from loupe.diffusion.latents import encode_captions, encode_images, encode_keys, views
from loupe.diffusion.model_loading import load_text_encoder, load_tokenizer, load_vae
from loupe.diffusion.tensor_files import read_tensors
from loupe.diffusion.train_log import peak_memory_gb
from loupe.diffusion.train_settings import TrainSettings
from loupe.diffusion.train_store import TrainStore
from loupe.diffusion.trainer_start import build_trainer
from loupe.records import BaseModelInfo, CaptionRecord
from loupe.workstore import WorkStore

ATTENTION = ("to_k", "to_out.0", "to_q", "to_v")


def main() -> None:
    options = _parser().parse_args()
    policy = choose_device()
    make_repeatable(policy)
    info = base_model_info(options.base, name=str(options.base), revision=None)
    store = WorkStore(options.output / "work")
    examples, encode_s = _encode(options, info, policy, store)
    settings = train_settings(
        max_steps=options.steps,
        batch_size=options.batch_size,
        accumulation=options.accumulation,
        compile_=options.compile,
    )
    adapter = AdapterConfig(options.rank, options.rank, ATTENTION, info.name)
    parts = train_run.run_parts(settings, adapter, examples=examples, base_sha256=info.sha256, policy=policy)
    states = TrainStore(store, parts)
    trainer = build_trainer(options.base, info, examples, settings=settings, adapter=adapter, policy=policy)
    started = time.perf_counter()
    rows = list(train_run.run_legs([train_run.Leg(0, options.steps)], trainer, states, interim_interval_s=10.0))
    train_s = time.perf_counter() - started
    report = {
        "encode_s": encode_s,
        "train_s": train_s,
        "steps": len(rows),
        "last_loss": rows[-1].loss,
        "peak_memory_gb": peak_memory_gb(policy.device),
    }
    options.report.write_text(json.dumps(report))


def train_settings(*, max_steps: int, batch_size: int, accumulation: int, compile_: bool = False) -> TrainSettings:
    """Return what both sides train with; the peer's script has no caption dropout, so there is none here."""
    return TrainSettings(
        seed=0,
        max_steps=max_steps,
        batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        compile=compile_,
        optimizer="adamw",
        learning_rate=1e-4,
        lr_scheduler="constant",
        lr_warmup_steps=0,
        adam_betas=(0.9, 0.999),
        adam_epsilon=1e-8,
        weight_decay=0.01,
        max_grad_norm=1.0,
        lora_dropout=0.0,
        ema_decay=None,
        noise_offset=0.0,
        snr_gamma=None,
        caption_dropout=0.0,
    )


def _encode(
    options: argparse.Namespace, info: BaseModelInfo, policy: DevicePolicy, store: WorkStore
) -> tuple[Examples, float]:
    records = _records(options.photos, options.resolution)
    rows = latent_files.distinct_captions({"train": records, "val": []})
    identity = device_identity(policy)
    keys = encode_keys(base_sha256=info.sha256, machine=identity, resolution_px=options.resolution)
    vae = load_vae(options.base, device=policy.device, dtype=torch.float32)
    text_encoder = load_text_encoder(options.base, device=policy.device, dtype=torch.float32)
    tokenizer = load_tokenizer(options.base)
    started = time.perf_counter()
    photos = views(records, mirrored_too=False)
    for _ in encode_images(photos, vae=vae, dataset=options.photos, keys=keys, store=store):
        pass
    captions = list(rows)
    for _ in encode_captions(captions, tokenizer=tokenizer, text_encoder=text_encoder, keys=keys, store=store):
        pass
    folder = options.output
    latent_files.write_split(folder / "train.safetensors", records, rows=rows, keys=keys, store=store)
    latent_files.write_text(folder, rows, keys=keys, store=store)
    split = read_tensors(folder / "train.safetensors", made_by="encode")
    embeddings = read_tensors(folder / latent_files.TEXT_FILE, made_by="encode")["embeddings"]
    encode_s = time.perf_counter() - started
    ids = tuple(record.image_id for record in records)
    return Examples(ids, split["mean"], split["std"], split["caption_index"], embeddings), encode_s


def _records(photos: Path, side_px: int) -> list[CaptionRecord]:
    lines = (photos / METADATA).read_text(encoding="utf-8").splitlines()
    return [
        CaptionRecord(
            image_id=Path(line["file_name"]).stem,
            split="train",
            file=line["file_name"],
            caption=line["text"],
            sha256=sha256_file(photos / line["file_name"]),
            source_width_px=side_px,
            source_height_px=side_px,
            attributes={},
        )
        for line in map(json.loads, lines)
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("base", "photos", "output", "report"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("steps", "batch-size", "accumulation", "resolution", "rank"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--compile", action="store_true")
    return parser


if __name__ == "__main__":
    main()
