"""Text-image scores agree with torchmetrics' CLIPScore on the same features, up to its clamp of the mean. No download.

torchmetrics takes a function that returns model and processor: here ones that hand out given features.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from loupe.metrics.clip_score import clip_scores
from loupe.metrics.image_set import CLIP_IMAGE, CLIP_TEXT
from tests.unit.metrics.image_sets import NOTHING, image_set


class GivenFeatures:
    """Model and processor in one: a picture is its row number, and so is a text."""

    config = SimpleNamespace(text_config=SimpleNamespace(max_position_embeddings=77))

    def __init__(self, image_ND: np.ndarray, text_ND: np.ndarray) -> None:
        self.image_ND, self.text_ND = torch.from_numpy(image_ND), torch.from_numpy(text_ND)

    def __call__(self, *, images=None, text=None, **_: object) -> dict[str, torch.Tensor]:
        if images is not None:
            return {"pixel_values": torch.stack([picture.flatten()[0] for picture in images])}
        ids = torch.tensor([[int(line)] for line in text])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def get_image_features(self, rows: torch.Tensor) -> torch.Tensor:
        return self.image_ND[rows.long()]

    def get_text_features(self, ids: torch.Tensor, _mask: torch.Tensor) -> torch.Tensor:
        return self.text_ND[ids[:, 0]]

    def to(self, _device: object) -> GivenFeatures:
        return self

    def eval(self) -> GivenFeatures:
        return self


def of_torchmetrics(image_ND: np.ndarray, text_ND: np.ndarray, parts: list[range]) -> float:
    from torchmetrics.multimodal import CLIPScore

    given = GivenFeatures(image_ND, text_ND)
    metric = CLIPScore(model_name_or_path=lambda: (given, given))
    with torch.no_grad():
        for rows in parts:
            metric.update([torch.full((3, 2, 2), row) for row in rows], [str(row) for row in rows])
    return float(metric.compute())


def ours(image_ND: np.ndarray, text_ND: np.ndarray) -> float:
    return float(clip_scores(image_set(len(image_ND), **{CLIP_IMAGE: image_ND, CLIP_TEXT: text_ND}), NOTHING).mean())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_torchmetrics_agrees_whatever_the_batches(seed: int) -> None:
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(24, 16))
    image = text + 2 * rng.normal(size=(24, 16))
    expected = ours(image, text)
    assert expected > 0
    for parts in ([range(24)], [range(10), range(10, 24)]):
        assert of_torchmetrics(image, text, parts) == pytest.approx(expected, abs=1e-4)


def test_torchmetrics_clamps_a_mean_below_0_and_the_score_here_does_not() -> None:
    """Opposite vectors: -100 here, max(mean, 0) = 0 there; with equal ones beside them both have a mean of 0."""
    unit = np.eye(4)
    assert (ours(-unit, unit), of_torchmetrics(-unit, unit, [range(4)])) == (-100.0, 0.0)
    half = np.concatenate([unit[:2], -unit[2:]])
    assert ours(half, unit) == pytest.approx(of_torchmetrics(half, unit, [range(4)]), abs=1e-6)
