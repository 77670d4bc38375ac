"""Tiny models of random weights in the format of transformers, saved as the large ones are. Their scores mean nothing.

They lie in folders of a test, or in a made-up Hugging Face cache, and are never taken for a model that exists.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from loupe.atomic_io import sha256_file
from tests.unit.metrics.small_run import moved

SIDE_PX = 28


def write_toy_dinov2(folder: Path, *, trained: bool = True) -> Path:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE_PX, patch_size=14, mlp_ratio=2
    )
    _save(Dinov2Model, config, folder, trained=trained)
    size = {"height": SIDE_PX, "width": SIDE_PX}
    BitImageProcessor(size={"shortest_edge": SIDE_PX}, crop_size=size).save_pretrained(folder)
    return folder


def write_toy_rater(folder: Path, *, trained: bool = True) -> Path:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48, image_size=SIDE_PX,
        patch_size=14, id2label={0: "not_aesthetic", 1: "aesthetic"}, label2id={"not_aesthetic": 0, "aesthetic": 1},
    )  # fmt: skip
    _save(ViTForImageClassification, config, folder, trained=trained)
    ViTImageProcessor(size={"height": SIDE_PX, "width": SIDE_PX}).save_pretrained(folder)
    return folder


def write_toy_preference(folder: Path, *, trained: bool = True) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

    words = ["<pad>", "<start>", "<end>", "<unk>", "photo", "of", "Red", "Blue", "Green", "shoes"]
    small = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(words), "max_position_embeddings": 8, "eos_token_id": 2, "bos_token_id": 1}
    vision = {**small, "image_size": SIDE_PX, "patch_size": 14}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    _save(CLIPModel, config, folder, trained=trained)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<unk>"
    ).save_pretrained(folder)
    size = {"height": SIDE_PX, "width": SIDE_PX}
    CLIPImageProcessor(size={"shortest_edge": SIDE_PX}, crop_size=size).save_pretrained(folder)
    return folder


def as_cached(folder: Path, cache: Path, hub_id: str) -> Path:
    """Put a saved model into a Hugging Face cache, each file under its SHA-256 as downloads are; return its place."""
    place = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot, blobs, revision = place / "snapshots" / ("a" * 40), place / "blobs", place / "refs" / "main"
    for made in (snapshot, blobs, revision.parent):
        made.mkdir(parents=True)
    revision.write_text("a" * 40, encoding="utf-8")
    for file in folder.iterdir():
        blob = blobs / sha256_file(file)
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(blob)
    return snapshot


def change_weights(path: Path) -> None:
    """Move one number of a safetensors file."""
    state = load_file(path)
    name = sorted(state)[0]
    state[name].view(-1)[0] += 0.5
    save_file(state, path, metadata={"format": "pt"})


def _save(model_class: type, config: object, folder: Path, *, trained: bool) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
    if trained:
        model.load_state_dict(
            moved({k: v for k, v in model.state_dict().items() if v.is_floating_point()}, 4), strict=False
        )
    model.save_pretrained(folder)
