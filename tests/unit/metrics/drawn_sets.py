"""Small image sets with all that extractors say, drawn by chance, for tests of scores and nulls."""

from __future__ import annotations

import numpy as np

from loupe.metric_specs import METRIC_SPECS
from loupe.metrics import image_set as names
from loupe.metrics.image_set import ImageSet, RealPhotos

KEYS = (
    "fd_demo", "kid_demo", "recall_demo", "precision_demo", "clip_demo", "colour_demo", "background_ok",
    "memor_share_demo", "diversity_ratio_demo", "vendi_demo", "is_demo",
)  # fmt: skip
SPECS = {key: METRIC_SPECS[key] for key in KEYS}
PROMPTS = tuple(f"p{i}" for i in range(8))


def images(seed: int, *, shift: float = 0.0, seeds: int = 3, colours: bool = True) -> ImageSet:
    rng = np.random.default_rng(seed)
    cells = tuple((prompt, index) for prompt in PROMPTS for index in range(seeds))
    n = len(cells)
    text = np.repeat(np.random.default_rng(99).normal(size=(len(PROMPTS), 6)), seeds, axis=0)
    return ImageSet(
        cells=cells,
        arrays={
            names.FEATURES: rng.normal(size=(n, 5)) + shift,
            names.LOGITS: rng.normal(size=(n, 4)),
            names.COLOUR_LOGITS: rng.normal(size=(n, 3)),
            names.ASKED_COLOUR: np.arange(n) % 3 if colours else np.full(n, -1),
            names.CLIP_IMAGE: text + rng.normal(size=(n, 6)),
            names.CLIP_TEXT: text,
            names.ASKED_FAMILY: np.arange(n) // seeds % 2 if colours else np.full(n, -1),
            names.BACKGROUND_WHITE_SHARE: rng.uniform(0.97, 1, n),
        },
    )


REAL = RealPhotos(train=images(1001), held_out=images(1000))
