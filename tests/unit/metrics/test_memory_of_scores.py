"""No score holds a matrix of all pictures by all pictures: many pictures take little more memory than few."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from loupe.evaluation_records import ExtractorInfo
from loupe.metric_specs import applicable_specs
from loupe.metrics import image_set as names
from loupe.metrics.estimates import resampling_of
from loupe.metrics.image_set import ImageSet, RealPhotos
from loupe.metrics.scoring import estimate

N, SEEDS = 3072, 48
PROMPTS = tuple(f"p{i}" for i in range(N // SEEDS))
N_FEATURES, N_CLASSES, N_PHOTOS = 48, 12, 60
SPECS = applicable_specs(
    ExtractorInfo(name=name, role=role, kind="domain_trained", sha256="0" * 64, resize="none")
    for name, role in (("demo-classifier", "inception"), ("demo-clip", "clip"))
)


def pictures(cells: tuple[tuple[str, int], ...]) -> ImageSet:
    n = len(cells)
    rng = np.random.default_rng(n)
    arrays = {name: rng.normal(size=(n, N_FEATURES)).astype(np.float32) for name in (names.FEATURES, names.CLIP_IMAGE)}
    texts = {prompt: rng.normal(size=N_FEATURES) for prompt in dict.fromkeys(prompt for prompt, _ in cells)}
    arrays[names.CLIP_TEXT] = np.array([texts[prompt] for prompt, _ in cells], dtype=np.float32)
    arrays[names.LOGITS] = rng.normal(size=(n, N_CLASSES)).astype(np.float32)
    arrays[names.COLOUR_LOGITS], arrays[names.ASKED_COLOUR] = rng.normal(size=(n, 3)), np.arange(n) % 3
    arrays[names.COLOUR_SHARES], arrays[names.ASKED_FAMILY] = rng.random((n, 5)), np.arange(n) // SEEDS % 2
    for name in (
        names.BACKGROUND_WHITE_SHARE, names.FOREGROUND_SHARE, names.CENTRE_OFFSET, names.TOUCHES_BORDER,
        names.N_OBJECTS, names.SHARPNESS,
    ):  # fmt: skip
        arrays[name] = rng.random(n)
    return ImageSet(cells=cells, arrays=arrays)


@pytest.fixture(scope="module")
def drawn() -> ImageSet:
    return pictures(tuple((prompt, index) for prompt in PROMPTS for index in range(SEEDS)))


@pytest.fixture(scope="module")
def real() -> RealPhotos:
    photos = pictures(tuple((f"photo {i}", 0) for i in range(N_PHOTOS)))
    return RealPhotos(train=photos, held_out=photos)


@pytest.mark.parametrize("key", SPECS)
def test_no_score_needs_a_matrix_of_all_pictures_by_all_pictures(key: str, drawn: ImageSet, real: RealPhotos) -> None:
    resampling = resampling_of(PROMPTS, 3, np.random.default_rng(0))
    tracemalloc.start()
    try:
        assert np.isfinite(estimate(drawn, real, SPECS[key], resampling).value)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < N * N * 8 / 2
