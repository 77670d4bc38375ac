"""The demo's own trained scorers on pictures that a test makes: the path that `evaluate` takes, without its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loupe.metric_specs import MetricSpec, applicable_specs
from loupe.metrics.extractor_keys import Machine
from loupe.metrics.extractors import Extractors, resolve_extractors
from loupe.metrics.image_set import ImageSet, RealPhotos
from loupe.metrics.images import MadeImage, Pixels
from loupe.metrics.measure import ImageRow, measure_images
from loupe.metrics.scoring import value_of
from loupe.workstore import WorkStore

DEMO_FOLDER = Path(__file__).resolve().parents[3] / "data" / "demo"


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture and what was asked for."""

    cell: tuple[str, int]
    pixels: Pixels
    text: str
    colour: str


class DemoScorers:
    """The trained classifier and CLIP of data/demo, with a store of their own."""

    def __init__(self, store_folder: Path) -> None:
        self.store = WorkStore(store_folder)
        self.extractors: Extractors = resolve_extractors(
            ("demo", "demo-clip"), demo_folder=DEMO_FOLDER, machine=Machine(device="cpu", identity="cpu")
        )
        self.specs: Mapping[str, MetricSpec] = applicable_specs(self.extractors.infos)

    def measure(self, shown: Sequence[Shown], *, batch_size: int = 32) -> ImageSet:
        """Return the pictures with their features."""
        rows = [
            ImageRow(cell=s.cell, file=_made(s.pixels), text=s.text, colour=s.colour) for s in shown
        ]  # fmt: skip
        images, _ = measure_images(rows, self.extractors, self.store, batch_size=batch_size, what="test")
        return images

    def score(self, key: str, images: ImageSet, real: RealPhotos) -> float:
        """Return one metric of the pictures."""
        return value_of(images, real, self.specs[key])


def _made(pixels: Pixels) -> MadeImage:
    content = np.ascontiguousarray(pixels)
    return MadeImage(sha256=hashlib.sha256(content.tobytes()).hexdigest(), draw=lambda: content)
