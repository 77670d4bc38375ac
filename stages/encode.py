"""Encode the train and val images and their captions once, so that training needs neither VAE nor text encoder.

Reads data/dataset and the base model; writes data/latents, its manifest last. What was encoded before comes from the
work store. With train.random_flip the mirrored training photos are encoded as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.atomic_io import empty_folder, read_record, read_records, sha256_file, write_record
from loupe.errors import PipelineError
from loupe.params import Params
from loupe.paths import ProjectPaths
from loupe.progress import track
from loupe.records import BaseModelInfo, CaptionRecord, DatasetManifest, LatentsManifest
from loupe.stage import report_counts, run_stage
from loupe.workstore import WorkStore

if TYPE_CHECKING:
    from loupe.diffusion.latents import EncodeKeys, PhotoView


def encode(params: Params, paths: ProjectPaths, store: WorkStore) -> None:
    """Run the stage; see the module's docstring."""
    from loupe.diffusion import latent_files
    from loupe.diffusion.base_model import base_model_info, resolve_base_model
    from loupe.diffusion.device import choose_device, device_identity, make_repeatable
    from loupe.diffusion.device_memory import told_when_full
    from loupe.diffusion.latents import ENCODE_DTYPE, encode_keys, views

    base = resolve_base_model(params.model.base, params.model.revision, demo_folder=paths.demo)
    info = base_model_info(base, name=params.model.base, revision=params.model.revision)
    dataset = read_record(paths.dataset / "manifest.json", DatasetManifest, made_by="prepare")
    splits = {split: _read_split(paths, dataset, split) for split in latent_files.ENCODED_SPLITS}
    _say_resolution(info, dataset.resolution_px)

    policy = choose_device()
    make_repeatable(policy)
    options = {"machine": device_identity(policy), "resolution_px": dataset.resolution_px}
    keys = encode_keys(base_sha256=info.sha256, **options)
    rows = latent_files.distinct_captions(splits)
    flipped = {"train"} if params.train.random_flip else set()
    images = [view for split in splits for view in views(splits[split], mirrored_too=split in flipped)]
    with told_when_full(policy.device):
        n_new = _encode_images(images, base, policy.device, dataset=paths.dataset, keys=keys, store=store)
        n_new += _encode_captions(list(rows), base, policy.device, keys=keys, store=store)

    folder = empty_folder(paths.latents)
    files = {latent_files.TEXT_FILE: latent_files.write_text(folder, rows, keys=keys, store=store)}
    files[latent_files.TOKENS_FILE] = latent_files.write_tokens(folder, rows, base_folder=base)
    for split, records in splits.items():
        name = latent_files.split_file(split)
        options = {"rows": rows, "keys": keys, "store": store, "mirrored_too": split in flipped}
        files[name] = latent_files.write_split(folder / name, records, **options)
    manifest = LatentsManifest(
        base_model=info,
        dtype=ENCODE_DTYPE,
        resolution_px=dataset.resolution_px,
        image_ids={split: tuple(record.image_id for record in records) for split, records in splits.items()},
        captions_sha256={split: dataset.captions_sha256[split] for split in splits},
        files=files,
    )
    write_record(folder / "manifest.json", manifest)
    report_counts("encode", computed=n_new, reused=len(images) + len(rows) - n_new)


def _read_split(paths: ProjectPaths, dataset: DatasetManifest, split: str) -> list[CaptionRecord]:
    file = paths.dataset / split / "captions.jsonl"
    records = read_records(file, CaptionRecord, made_by="prepare")
    if sha256_file(file) != dataset.captions_sha256[split]:
        raise PipelineError(f"{file} has changed since it was prepared. Run: dvc repro --force prepare")
    if not records:
        raise PipelineError(f"{file} holds no example. Raise data.split.{split} or data.max_examples.")
    return records


def _say_resolution(info: BaseModelInfo, resolution_px: int) -> None:
    if resolution_px != info.sample_size_px:
        own = f"The images are {resolution_px} px, the base model was made for {info.sample_size_px} px."
        print(f"{own} That works, but it draws best at its own size (data.resolution).", flush=True)


def _encode_images(
    wanted: Sequence[PhotoView], base: Path, device: str, *, dataset: Path, keys: EncodeKeys, store: WorkStore
) -> int:
    import torch

    from loupe.diffusion.latents import encode_images, new_images
    from loupe.diffusion.model_loading import load_vae

    new = new_images(wanted, keys=keys, store=store)
    if new:
        vae = load_vae(base, device=device, dtype=torch.float32)
        done = encode_images(new, vae=vae, dataset=dataset, keys=keys, store=store)
        for _ in track(done, total=len(new), what="encode images"):
            pass
    return len(new)


def _encode_captions(captions: Sequence[str], base: Path, device: str, *, keys: EncodeKeys, store: WorkStore) -> int:
    import torch

    from loupe.diffusion.latents import encode_captions, new_captions
    from loupe.diffusion.model_loading import load_text_encoder, load_tokenizer

    new = new_captions(captions, keys=keys, store=store)
    if new:
        text_encoder = load_text_encoder(base, device=device, dtype=torch.float32)
        tokenizer = load_tokenizer(base)
        done = encode_captions(new, tokenizer=tokenizer, text_encoder=text_encoder, keys=keys, store=store)
        for _ in track(done, total=len(new), what="encode captions", unit="caption"):
            pass
    return len(new)


if __name__ == "__main__":
    run_stage("encode", __doc__, encode)
