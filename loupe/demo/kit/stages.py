"""The kit's stages in order, each reading what the ones before left in the work folder."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from loupe.demo.kit.corpus import Corpus, Stream, load_corpus
from loupe.demo.kit.settings import KitSettings
from loupe.demo.kit.vae import train_vae


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


def _vae(context: Context) -> None:
    train_vae(context.everyday(), context.catalogue(), settings=context.settings, device=context.device, folder=context.work)


RUN: dict[str, Callable[[Context], None]] = {"vae": _vae}


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run_stage(stage: str, *, device: str, work: Path, out: Path) -> None:
    """Run one stage by its name."""
    began = time.monotonic()
    RUN[stage](Context(KitSettings(), _device(device), work, out))
    print(f"{stage}: done in {time.monotonic() - began:.0f} s", flush=True)
