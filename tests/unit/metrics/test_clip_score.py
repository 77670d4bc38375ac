"""Text-image score: 100 cos per image, without clamp, whatever the lengths."""

from __future__ import annotations

import numpy as np
import pytest

from loupe.metrics.clip_score import clip_scores, cosine_points
from loupe.metrics.image_set import CLIP_IMAGE, CLIP_TEXT, ImageSet


def test_equal_directions_give_100_and_opposite_ones_minus_100() -> None:
    text = np.array([[3.0, 4.0], [3.0, 4.0]])
    scores = cosine_points(np.array([[0.6, 0.8], [-0.6, -0.8]]), text)
    assert scores == pytest.approx([100.0, -100.0])
    assert scores.mean() == pytest.approx(0.0), "no clamp per image: a clamp would give 50 here"


def test_length_of_an_embedding_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(8, 16)), rng.normal(size=(8, 16))
    scaled = image * rng.uniform(0.1, 50, size=(8, 1))
    assert cosine_points(scaled, 7 * text) == pytest.approx(cosine_points(image, text), rel=1e-12)


def test_each_image_meets_its_own_prompt() -> None:
    features = np.eye(3)
    images = ImageSet(
        cells=(("a", 0), ("b", 0), ("c", 0)), arrays={CLIP_IMAGE: features, CLIP_TEXT: features[[0, 2, 1]]}
    )
    assert clip_scores(images).tolist() == [100.0, 0.0, 0.0]


def test_a_feature_without_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="length 0"):
        cosine_points(np.zeros((1, 4)), np.ones((1, 4)))


def test_no_images_give_no_scores() -> None:
    assert cosine_points(np.zeros((0, 4)), np.zeros((0, 4))).shape == (0,)
