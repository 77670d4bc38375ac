"""Results are kept by the identity of arrays: never shared between arrays that merely look alike."""

from __future__ import annotations

import weakref

import numpy as np

from loupe.metrics.array_cache import once_per_arrays
from loupe.metrics.diversity import vendi_score
from loupe.metrics.image_set import ASKED_FAMILY, FEATURES
from loupe.metrics.manifold import coverage_score
from tests.unit.metrics.image_sets import image_set, real_photos


def test_the_same_arrays_are_worked_on_once_and_equal_ones_anew() -> None:
    calls: list[float] = []

    @once_per_arrays(keep=2)
    def total(x: np.ndarray, y: np.ndarray) -> float:
        calls.append(float(x.sum()))
        return float(x.sum() + y.sum())

    a, b = np.ones(3), np.full(3, 2.0)
    assert [total(a, b), total(a, b), total(b, a)] == [9.0, 9.0, 9.0]
    assert len(calls) == 2
    assert total(a.copy(), b) == 9.0
    assert len(calls) == 3
    total(a, b)
    assert len(calls) == 4, "of three groups the latest two are kept"


def test_a_freed_array_never_lends_its_result_to_the_next_at_its_address() -> None:
    @once_per_arrays(keep=1)
    def first(x: np.ndarray) -> float:
        return float(x[0])

    assert [first(np.full(4, float(i))) for i in range(50)] == [float(i) for i in range(50)]


def test_neither_array_nor_result_outlives_the_arrays_that_were_asked_for() -> None:
    @once_per_arrays(keep=4)
    def doubled(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 2 * x + y

    lasting, passing = np.ones(3), np.ones(3)
    array, result = weakref.ref(passing), weakref.ref(doubled(lasting, passing))
    assert doubled(lasting, passing) is result()
    del passing
    assert array() is None
    assert result() is None


def test_scores_do_not_depend_on_what_was_scored_before() -> None:
    def photos(seed: int) -> object:
        features = np.random.default_rng(seed).normal(size=(30, 5))
        return image_set(30, **{FEATURES: features, ASKED_FAMILY: np.zeros(30, dtype=np.int64)})

    alone = [
        (vendi_score(photos(i), real_photos(photos(9))), coverage_score(photos(i), real_photos(photos(9))))
        for i in (1, 2)
    ]
    shared = real_photos(photos(9))
    again = [(vendi_score(photos(i), shared), coverage_score(photos(i), shared)) for i in (1, 2, 1, 2)]
    assert again == alone * 2
