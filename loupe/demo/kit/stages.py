"""The kit's stages in order, each reading what the ones before left in the work folder."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from PIL import Image

from loupe.demo.kit.base import build_text_encoder, build_tokenizer, build_unet
from loupe.demo.kit.bpe import Merge, learn_merges
from loupe.demo.kit.captions import caption_corpus
from loupe.demo.kit.check import (
    LOOKS,
    base_agreement,
    classifier_accuracy,
    clip_accuracy,
    contact_sheet,
    load_base,
    lora_trial,
    vae_quality,
)
from loupe.demo.kit.corpus import Corpus, Stream, load_corpus
from loupe.demo.kit.decoder import train_decoder
from loupe.demo.kit.denoiser import train_denoiser
from loupe.demo.kit.latents import load_latents, make_latents, scaling_factor, tokenize
from loupe.demo.kit.package import install, store_checks
from loupe.demo.kit.scorer_classifier import train_classifier
from loupe.demo.kit.scorer_clip import train_clip
from loupe.demo.kit.settings import MERGE_CAPTIONS, KitSettings
from loupe.demo.kit.trial import LoraTrial
from loupe.demo.kit.vae import train_vae
from loupe.metrics.classifier import load_classifier


@dataclass(frozen=True)
class Context:
    """What a stage gets."""

    settings: KitSettings
    device: torch.device
    work: Path
    out: Path

    def corpus(self, stream: Stream, count: int) -> Corpus:
        """The rendered pictures of a stream."""
        return load_corpus(self.work, seed=self.settings.seed, stream=stream, count=count)

    def everyday(self) -> Corpus:
        """Training pictures of the everyday look."""
        return self.corpus("everyday", self.settings.everyday_images)

    def catalogue(self) -> Corpus:
        """Training pictures of the catalogue look (never seen by the base's UNet)."""
        return self.corpus("catalogue", self.settings.catalogue_images)

    def merges(self) -> list[Merge]:
        """The byte-pair merges, learnt from captions of both looks."""
        return learn_merges(caption_corpus(self.settings.seed, MERGE_CAPTIONS), count=self.settings.merges)


def _vae(context: Context) -> None:
    train_vae(
        context.everyday(), context.catalogue(), settings=context.settings, device=context.device, folder=context.work
    )


def _latents(context: Context) -> None:
    vae = AutoencoderKL.from_pretrained(context.work / "vae").to(context.device)
    make_latents(vae, context.everyday().images, folder=context.work)


def _unet(context: Context) -> None:
    corpus, settings = context.everyday(), context.settings
    tokenizer = build_tokenizer(context.merges())
    data = load_latents(context.work, tokenize(corpus.items, tokenizer, seed=settings.seed), tokenizer)
    train_denoiser(
        data,
        text_encoder=build_text_encoder(settings, tokenizer),
        unet=build_unet(settings),
        settings=settings,
        device=context.device,
        folder=context.work,
    )


def _decoder(context: Context) -> None:
    train_decoder(
        AutoencoderKL.from_pretrained(context.work / "vae"),
        context.everyday(),
        context.catalogue(),
        scaling_factor=scaling_factor(context.work),
        settings=context.settings,
        device=context.device,
        folder=context.work,
    )


def _clip(context: Context) -> None:
    train_clip(
        context.everyday(),
        context.catalogue(),
        merges=context.merges(),
        settings=context.settings,
        device=context.device,
        folder=context.work,
    )


def _classifier(context: Context) -> None:
    train_classifier(
        context.everyday(), context.catalogue(), settings=context.settings, device=context.device, folder=context.work
    )


def _install(context: Context) -> None:
    install(context.work, context.out, merges=context.merges(), settings=context.settings)


def _check(context: Context) -> None:
    settings, classifier = context.settings, load_classifier(context.out / "classifier")
    pipeline = load_base(context.out / "base")
    checks: dict[str, Any] = {}
    for look in LOOKS:
        held_out = context.corpus(f"held_out_{look}", settings.held_out_images)
        checks[look] = {
            "classifier": classifier_accuracy(classifier, held_out),
            "clip": clip_accuracy(context.out / "clip", held_out),
            "vae": vae_quality(pipeline, held_out),
        }
    checks["base_prompts"], pictures = base_agreement(pipeline, classifier)
    scores, before, after = lora_trial(context.out / "base", classifier, seed=settings.seed, trial=LoraTrial())
    checks["catalogue_prompts"] = scores
    for name, sheet in {"base_prompts": pictures, "catalogue_base": before, "catalogue_lora": after}.items():
        Image.fromarray(contact_sheet(sheet, 12 if name == "base_prompts" else 8)).save(
            context.work / f"check-{name}.png"
        )
    store_checks(context.out, checks)
    print(json.dumps(checks, indent=1), flush=True)


RUN: dict[str, Callable[[Context], None]] = {
    "vae": _vae,
    "latents": _latents,
    "unet": _unet,
    "decoder": _decoder,
    "clip": _clip,
    "classifier": _classifier,
    "install": _install,
    "check": _check,
}


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run_stage(stage: str, *, device: str, work: Path, out: Path) -> None:
    """Run one stage by its name."""
    began = time.monotonic()
    RUN[stage](Context(KitSettings(), _device(device), work, out))
    print(f"{stage}: done in {time.monotonic() - began:.0f} s", flush=True)
