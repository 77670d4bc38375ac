"""Inception Score: known values, the traps of confident logits and of splits, and resamples."""

from __future__ import annotations

import numpy as np
import pytest

from loupe.metrics.image_set import LOGITS, ImageSet, TooFewImagesError
from loupe.metrics.inception_score import (
    inception_score,
    inception_score_of_logits,
    inception_score_of_logits_resamples,
)
from tests.unit.metrics.image_sets import NOTHING


def one_hot(n_per_class: int, classes: int, margin: float) -> np.ndarray:
    return margin * np.tile(np.eye(classes), (n_per_class, 1))


def test_balanced_confident_classes_count_the_classes() -> None:
    assert inception_score_of_logits(one_hot(10, 10, 60.0)) == pytest.approx(10.0, rel=1e-9)


def test_uniform_predictions_score_one() -> None:
    assert inception_score_of_logits(np.zeros((20, 7))) == pytest.approx(1.0, abs=1e-12)


def test_two_unsure_classes() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.1, 0.9]]))
    assert inception_score_of_logits(logits) == pytest.approx(1.44493, abs=1e-5)


@pytest.mark.parametrize("margin", [110.0, 800.0, 5000.0])
def test_very_confident_logits_give_the_limit_not_nan(margin: float) -> None:
    logits = np.zeros((100, 1000))
    logits[np.arange(100), np.arange(100) % 10] = margin
    assert inception_score_of_logits(logits) == pytest.approx(10.0, rel=1e-6)


def test_float32_logits_are_scored_in_float64() -> None:
    logits = (np.random.default_rng(0).normal(size=(64, 50)) * 6).astype(np.float32)
    assert inception_score_of_logits(logits) == inception_score_of_logits(logits.astype(np.float64))


def test_order_and_a_constant_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(40, 9))
    value = inception_score_of_logits(logits)
    assert inception_score_of_logits(rng.permutation(logits) + 100) == pytest.approx(value, rel=1e-9)


def test_joint_log_probabilities_are_left_as_they_are() -> None:
    """The demo classifier hands in log p(type) + log p(colour): with one type it scores the colours."""
    types = np.log(np.tile([1 - 1e-12, 1e-12], (12, 1)))
    colours = one_hot(4, 3, 40.0)
    colours -= np.log(np.exp(colours).sum(axis=1, keepdims=True))
    joint = (types[:, :, None] + colours[:, None, :]).reshape(12, 6)
    assert inception_score_of_logits(joint) == pytest.approx(3.0, rel=1e-6)


def test_torchmetrics_agrees_with_one_split() -> None:
    import torch
    from torchmetrics.image.inception import InceptionScore

    logits = np.random.default_rng(2).normal(size=(64, 30)) * 3
    metric = InceptionScore(feature=torch.nn.Identity(), splits=1)
    metric.update(torch.from_numpy(logits))
    assert inception_score_of_logits(logits) == pytest.approx(float(metric.compute()[0]), rel=1e-5)


def test_resamples_equal_repeating_the_rows() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(20, 6)) * 4
    counts = rng.multinomial(20, np.full(20, 0.05), size=4)
    expected = [inception_score_of_logits(np.repeat(logits, row, axis=0)) for row in counts]
    assert inception_score_of_logits_resamples(logits, counts) == pytest.approx(expected, rel=1e-9)
    assert np.isnan(inception_score_of_logits_resamples(logits, np.zeros((1, 20)))).all()


def test_in_parts_of_one_image_every_score_is_one_so_there_are_no_parts() -> None:
    """64 images in 64 parts, as libraries split them: the mean over the parts says nothing."""
    logits = one_hot(8, 8, 30.0)
    parts = [inception_score_of_logits(row[None]) for row in logits]
    assert np.mean(parts) == pytest.approx(1.0, abs=1e-9)
    assert inception_score_of_logits(logits) == pytest.approx(8.0, rel=1e-6)


def test_one_image_is_too_few() -> None:
    images = ImageSet(cells=(("a", 0),), arrays={LOGITS: np.zeros((1, 3))})
    with pytest.raises(TooFewImagesError, match="at least 2 images; there are 1"):
        inception_score(images, NOTHING)
