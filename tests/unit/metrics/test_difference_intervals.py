"""Intervals of differences of Inception Score and Vendi between models that truly differ."""

import numpy as np
import pytest

from loupe.metric_specs import METRIC_SPECS
from loupe.metrics import image_set as names
from loupe.metrics.estimates import resampling_of
from loupe.metrics.image_set import ImageSet, RealPhotos
from loupe.metrics.scoring import score_steps

CELLS = tuple((f"p{i}", j) for i in range(16) for j in range(4))


def _images(rng: np.random.Generator, centres: np.ndarray, within: float) -> ImageSet:
    around = np.repeat(centres, 4, axis=0) + within * rng.normal(size=(64, 6))
    families = np.zeros(64, dtype=np.int64)
    return ImageSet(CELLS, {names.FEATURES: around, names.LOGITS: around, names.ASKED_FAMILY: families})


@pytest.mark.parametrize("key", ["vendi_demo", "is_demo"])
def test_draws_of_a_difference_lie_around_its_value(key: str) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(16, 6))
    base, step = _images(rng, centres, 0.7), _images(rng, 0.6 * centres, 0.15)
    resampling = resampling_of(tuple(f"p{i}" for i in range(16)), 200, rng)
    real, specs = RealPhotos(train=base, held_out=base), {key: METRIC_SPECS[key]}
    scored = score_steps({0: base, 10: step}, real, specs, resampling)
    found = scored[1].differences[key]
    assert abs(found.draws.mean() - found.value) < 0.2 * found.draws.std()
