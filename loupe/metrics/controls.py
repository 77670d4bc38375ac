"""Pictures that nobody would ship, scored like a checkpoint's: noise, blank white, and real photos with wrong captions.

A score that they reach too says nothing about a checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from loupe.metric_specs import MetricSpec
from loupe.metrics import clip_score, colour
from loupe.metrics.extractors import Extractors
from loupe.metrics.image_set import ASKED_COLOUR, ASKED_FAMILY, CLIP_TEXT, ImageSet, RealPhotos, TooFewImagesError
from loupe.metrics.images import MadeImage, Pixels
from loupe.metrics.measure import ImageRow, measure_images
from loupe.metrics.nulls import as_prompts
from loupe.metrics.scoring import resolve_compute, value_of
from loupe.records import SamplesManifest
from loupe.workstore import WorkStore

NOISE, WHITE, SHUFFLED = "noise", "blank white", "real photos, shuffled captions"
FILES = {NOISE: "noise", WHITE: "white", SHUFFLED: "shuffled"}
"""Control -> name of its image set in data/evaluation."""
OF_PROMPTS = (clip_score.__name__, colour.__name__)
"""Modules of the metrics that compare a picture with its prompt, which alone shuffled captions can change."""


def control_sets(
    manifest: SamplesManifest,
    real: RealPhotos,
    *,
    extractors: Extractors,
    store: WorkStore,
    batch_size: int,
    rng: np.random.Generator,
) -> dict[str, ImageSet]:
    """Return control -> its pictures, measured: of the prompts, seeds and sizes of one checkpoint of `manifest`."""
    size_px = (manifest.height_px, manifest.width_px)
    asked = [(prompt, index) for prompt in manifest.prompts for index in range(manifest.seeds_per_prompt)]
    noise = [_noise(int(seed), size_px) for seed in rng.integers(0, 2**63, len(asked))]
    white = _made(partial(np.full, (*size_px, 3), 255, dtype=np.uint8))
    sets = {}
    for name, pictures in ((NOISE, noise), (WHITE, [white] * len(asked))):
        rows = [
            ImageRow(cell=(prompt.prompt_id, index), file=picture, text=prompt.text, colour=prompt.colour)
            for (prompt, index), picture in zip(asked, pictures, strict=True)
        ]
        sets[name], _ = measure_images(rows, extractors, store, batch_size=batch_size, what=f"control: {name}")
    return {**sets, SHUFFLED: as_prompts(_with_other_captions(real.held_out, rng), manifest.seeds_per_prompt)}


def control_scores(
    sets: Mapping[str, ImageSet], real: RealPhotos, specs: Mapping[str, MetricSpec]
) -> dict[str, dict[str, float]]:
    """Return control -> metric key -> value; a metric that a control has no value of is left out."""
    scores: dict[str, dict[str, float]] = {}
    for name, images in sets.items():
        scores[name] = {}
        for key, spec in specs.items():
            if name == SHUFFLED and resolve_compute(spec.compute).__module__ not in OF_PROMPTS:
                continue
            try:
                scores[name][key] = value_of(images, real, spec)
            except TooFewImagesError:
                continue
    return scores


def _with_other_captions(photos: ImageSet, rng: np.random.Generator) -> ImageSet:
    """Return the photos, each with another one's caption in the eyes of every extractor."""
    order = rng.permutation(len(photos))
    follower = np.empty_like(order)
    follower[order] = np.roll(order, -1)  # one cycle through all photos: none keeps its own caption
    of_caption = {name.partition(".")[2] for name in (CLIP_TEXT, ASKED_COLOUR, ASKED_FAMILY)}
    moved = {n: array[follower] for n, array in photos.arrays.items() if n.partition(".")[2] in of_caption}
    return ImageSet(cells=photos.cells, arrays={**photos.arrays, **moved})


def _noise(seed: int, size_px: tuple[int, int]) -> MadeImage:
    def draw() -> Pixels:
        return np.random.default_rng(seed).integers(0, 256, (*size_px, 3), dtype=np.uint8)

    return _made(draw)


def _made(draw: Callable[[], Pixels]) -> MadeImage:
    return MadeImage(sha256=hashlib.sha256(draw().tobytes()).hexdigest(), draw=draw)
