"""Text-image score: 100 cos per image, without clamp, whatever the lengths."""

from __future__ import annotations

import numpy as np
import pytest

from loupe.metrics.clip_score import clip_gaps, clip_scores, cosine_points
from loupe.metrics.image_set import CLIP_IMAGE, CLIP_TEXT, ImageSet
from tests.unit.metrics.image_sets import NOTHING, image_set


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
    assert clip_scores(images, NOTHING).tolist() == [100.0, 0.0, 0.0]


def test_a_feature_without_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="length 0"):
        cosine_points(np.zeros((1, 4)), np.ones((1, 4)))


def test_no_images_give_no_scores() -> None:
    assert cosine_points(np.zeros((0, 4)), np.zeros((0, 4))).shape == (0,)


def test_the_gap_is_the_score_minus_the_mean_over_the_other_prompts() -> None:
    """Three orthogonal prompts, two seeds each; the first picture lies between its own prompt and the second."""
    text = np.repeat(np.eye(3), 2, axis=0)
    image = text.copy()
    image[0] = (1.0, 1.0, 0.0)
    gaps = clip_gaps(image_set(6, **{CLIP_IMAGE: image, CLIP_TEXT: text}), NOTHING)
    root = 100 / np.sqrt(2)
    assert gaps == pytest.approx([root - root / 2, *[100.0] * 5])


def test_a_picture_that_suits_every_prompt_alike_has_no_gap() -> None:
    text = np.repeat(np.eye(4), 2, axis=0)
    assert clip_gaps(image_set(8, **{CLIP_IMAGE: np.ones((8, 4)), CLIP_TEXT: text}), NOTHING) == pytest.approx(
        np.zeros(8)
    )


def test_the_gap_is_what_every_shuffle_of_the_prompts_costs_on_average() -> None:
    rng = np.random.default_rng(0)
    text, image = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    images = image_set(4, **{CLIP_IMAGE: image, CLIP_TEXT: text})
    rotations = [cosine_points(image, np.roll(text, k, axis=0)).mean() for k in (1, 2, 3)]
    gap = cosine_points(image, text).mean() - np.mean(rotations)
    assert clip_gaps(images, NOTHING).mean() == pytest.approx(gap)


def test_one_prompt_alone_has_no_gap() -> None:
    same = np.tile([[1.0, 2.0]], (3, 1))
    assert np.isnan(clip_gaps(image_set(3, **{CLIP_IMAGE: same, CLIP_TEXT: 5 * same}), NOTHING)).all()
