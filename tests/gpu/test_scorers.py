"""Features on a GPU are those of the CPU: the device changes no score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from loupe.demo.catalogue import render_item, sample_item
from loupe.metrics.clip import find_demo_clip, load_clip
from loupe.metrics.demo_classifier import load_demo_classifier
from loupe.metrics.frechet import frechet_distance
from loupe.metrics.images import Pixels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; this machine has none"),
]
DEMO_FOLDER = Path(__file__).resolve().parents[2] / "data" / "demo"


def drawings(seed: int) -> list[Pixels]:
    items = (sample_item(np.random.default_rng([seed, index]), article_type="Casual Shoes") for index in range(24))
    return [render_item(item, look="catalogue", size_px=128) for item in items]


def test_classifier_and_frechet_distance_agree_with_the_cpu() -> None:
    distances, features = {}, {}
    for device in ("cpu", "cuda"):
        extract = load_demo_classifier(DEMO_FOLDER / "classifier", device)
        features[device], others = extract(drawings(1)), extract(drawings(2))
        distances[device] = frechet_distance(features[device]["features"], others["features"])
    for name, on_cpu in features["cpu"].items():
        assert np.allclose(features["cuda"][name], on_cpu, rtol=1e-4, atol=1e-4), name
    assert distances["cuda"] == pytest.approx(distances["cpu"], rel=1e-4)


def test_clip_agrees_with_the_cpu() -> None:
    source, texts = find_demo_clip(DEMO_FOLDER / "clip"), ["a photo of red casual shoes", "a blue shoe"]
    on_cpu, on_gpu = (load_clip(source, device) for device in ("cpu", "cuda"))
    assert np.allclose(on_gpu.images(drawings(1))["image"], on_cpu.images(drawings(1))["image"], rtol=1e-3, atol=1e-4)
    assert np.allclose(on_gpu.texts(texts)["text"], on_cpu.texts(texts)["text"], rtol=1e-3, atol=1e-4)
