"""Inception Score of class logits, in one piece (splits = 1), alone and under bootstrap resamples.

exp(mean KL(p(y|x) || p(y))), Salimans et al. 2016 (arXiv:1606.03498). Splitting N images into parts lowers the score
(64 images in 64 parts give 1), so there is one part here and N is stated beside the value. It is at most the number
of classes that occur; for one kind of product a high score is no aim.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loupe.metrics.image_set import LOGITS, Array, ImageSet, RealPhotos, require_images
from loupe.metrics.row_parts import row_parts

LEAST_IMAGES = 2
"""One image always scores 1."""


def inception_score(images: ImageSet, real: RealPhotos) -> float:
    """Return the score of the images; `real` is not looked at (every set metric is called alike).

    Raises TooFewImagesError below two images.
    """
    del real
    require_images(images, LEAST_IMAGES, "an Inception Score")
    return inception_score_of_logits(images.array(LOGITS))


def inception_resamples(images: ImageSet, real: RealPhotos, weights_RN: NDArray) -> Array:
    """Return the score under each resample: image n weighs weights_RN[r, n]; NaN where a resample is empty."""
    del real
    return inception_score_of_logits_resamples(images.array(LOGITS), weights_RN)


def inception_score_of_logits(logits_NK: NDArray) -> float:
    """Return the score of unnormalised log-probabilities [N, K], computed in float64; 1 <= score <= K."""
    return float(inception_score_of_logits_resamples(logits_NK, np.ones((1, len(logits_NK))))[0])


def inception_score_of_logits_resamples(logits_NK: NDArray, weights_RN: NDArray) -> Array:
    """Return [R] scores in which row n weighs weights_RN[r, n].

    p log p is taken as 0 where p underflows: confident logits then give the limit, not 0 x -inf = NaN.
    """
    totals = np.sum(weights_RN, axis=1, dtype=np.float64)
    filled = totals > 0
    marginal = np.zeros((int(filled.sum()), logits_NK.shape[1]))
    mean_negative_entropy = np.zeros(len(marginal))
    for part in row_parts(len(logits_NK)):
        log_p = _log_softmax(np.asarray(logits_NK[part], dtype=np.float64))
        p = np.exp(log_p)
        weights = weights_RN[filled, part] / totals[filled, None]
        marginal += weights @ p
        mean_negative_entropy += weights @ np.where(p > 0, p * log_p, 0.0).sum(axis=1)
    log_marginal = np.log(marginal, where=marginal > 0, out=np.zeros_like(marginal))
    scores = np.full(len(totals), np.nan)
    scores[filled] = np.exp(mean_negative_entropy - (marginal * log_marginal).sum(axis=1))
    return scores


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
