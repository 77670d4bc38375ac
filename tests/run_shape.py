"""How large a fixture run is, what its prompts say, and how its pictures are drawn."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from loupe.evaluation_records import ExtractorInfo
from loupe.metric_specs import DEMO_CLASSIFIER, DEMO_CLIP
from loupe.records import BaseModelInfo, PromptRecord

ROOT = Path(__file__).resolve().parents[1]
NASTY = "a <script>alert(1)</script> *bold* :red[x] [link](https://example.org/) & <img src=x onerror=alert(2)> shoe"
COLOURS = {"black": "#2b2b2e", "red": "#c8352c", "blue": "#2f62b4", "yellow": "#e6b91e"}
EXTRACTORS = (
    ExtractorInfo(name=DEMO_CLASSIFIER, role="inception", kind="domain_trained", sha256="1" * 64, resize="none"),
    ExtractorInfo(name=DEMO_CLIP, role="clip", kind="domain_trained", sha256="2" * 64, resize="none"),
)
BASE = BaseModelInfo(
    name="demo", revision=None, sha256="b" * 64, prediction_type="epsilon", latent_channels=4, scaling_factor=0.18215,
    sample_size_px=128,
)  # fmt: skip
Painter = Callable[[str, int, float, int], Image.Image]
"""(colour name, seed index, share of the training done, side in px) -> picture"""


@dataclass(frozen=True)
class Shape:
    """How large a fixture run is."""

    steps: tuple[int, ...] = (75, 150, 225, 300)
    seeds: int = 2
    size_px: int = 64
    captions: int = 1

    @property
    def all_steps(self) -> tuple[int, ...]:
        return (0, *self.steps)


def paint_shoe(colour: str, seed_index: int, share: float, size_px: int) -> Image.Image:
    """A coloured shape that turns from a blob on a grey ground into a shoe on white as training goes on."""
    ground = int(150 + 105 * share)
    image = Image.new("RGB", (size_px, size_px), (ground, ground, min(255, ground + 4 * (3 - seed_index % 4))))
    draw, unit = ImageDraw.Draw(image), size_px / 16
    top = 5 + seed_index % 3
    draw.ellipse((3 * unit, top * unit, 12 * unit, 12 * unit), fill=COLOURS[colour])
    if share > 0.3:
        draw.rectangle((2 * unit, 9 * unit, 14 * unit, 11.5 * unit), fill=COLOURS[colour])
    if share > 0.6:
        draw.rectangle((2 * unit, 11.5 * unit, 14 * unit, 12.5 * unit), fill="#8a8a8a")
    return image


def prompts_of(shape: Shape) -> tuple[PromptRecord, ...]:
    fixed = [
        PromptRecord(prompt_id=f"{c}_shoes", text=f"a professional product photo of {c} casual shoes", colour=c)
        for c in COLOURS
    ]
    captions = [PromptRecord(prompt_id=f"val_{1000 + i}", text=NASTY, colour=None) for i in range(shape.captions)]
    return (*fixed, *captions)


def draw_sample(prompt: PromptRecord, seed_index: int, step: int, shape: Shape, paint: Painter) -> bytes:
    buffer = io.BytesIO()
    colour = prompt.colour or "yellow"
    paint(colour, seed_index, step / shape.steps[-1], shape.size_px).save(buffer, format="PNG")
    return buffer.getvalue()
