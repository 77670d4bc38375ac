"""White border: which pixels count, and where the gate lies."""

from __future__ import annotations

import numpy as np
import pytest

from loupe.metrics.background import background_finding, background_passes, background_white_share
from loupe.metrics.image_set import BACKGROUND_WHITE_SHARE, ImageSet, RealPhotos


def photos(shares) -> RealPhotos:
    train = ImageSet(
        cells=tuple((str(i), 0) for i in range(len(shares))), arrays={BACKGROUND_WHITE_SHARE: np.asarray(shares)}
    )
    return RealPhotos(train=train, held_out=train.rows([]))


def white(side: int = 100) -> np.ndarray:
    return np.full((side, side, 3), 255, dtype=np.uint8)


def test_a_product_inside_the_ring_does_not_count() -> None:
    image = white()
    image[6:94, 6:94] = 0
    assert background_white_share(image) == 1.0


def test_a_tint_in_one_channel_is_not_white() -> None:
    image = white()
    image[..., 2] = 239
    assert background_white_share(image) == 0.0
    image[..., 2] = 240
    assert background_white_share(image) == 1.0


def test_background_of_235_fails() -> None:
    assert background_white_share(np.full((64, 64, 3), 235, dtype=np.uint8)) == 0.0


def test_share_counts_ring_pixels() -> None:
    image = white()
    image[:, :3] = 0
    ring_pixels = 100 * 100 - 88 * 88
    assert background_white_share(image) == pytest.approx(1 - 300 / ring_pixels)


def test_ring_is_six_percent_of_the_shorter_side_and_never_empty() -> None:
    image = np.full((50, 200, 3), 255, dtype=np.uint8)
    image[3:47, 3:197] = 0
    assert background_white_share(image) == 1.0
    assert background_white_share(white(4)) == 1.0


def test_an_image_passes_from_99_percent() -> None:
    shares = np.array([0.9899, 0.99, 1.0])
    images = ImageSet(cells=(("a", 0), ("a", 1), ("a", 2)), arrays={BACKGROUND_WHITE_SHARE: shares})
    assert background_passes(images, photos([1.0, 1.0])).tolist() == [0.0, 1.0, 1.0]


def test_the_band_widens_to_less_white_photos_and_never_narrows() -> None:
    images = ImageSet(cells=(("a", 0), ("a", 1)), arrays={BACKGROUND_WHITE_SHARE: np.array([0.4, 0.6])})
    assert background_passes(images, photos(np.linspace(0.5, 1, 101))).tolist() == [0.0, 1.0]


def test_a_few_odd_photos_do_not_open_the_band_and_many_do() -> None:
    images = ImageSet(cells=(("a", 0), ("a", 1)), arrays={BACKGROUND_WHITE_SHARE: np.array([0.0, 1.0])})
    odd, grey = photos([0.0] * 4 + [1.0] * 296), photos([0.0] * 200 + [1.0] * 100)
    assert background_passes(images, odd).tolist() == [0.0, 1.0]
    assert background_finding(odd) is None
    assert background_passes(images, grey).tolist() == [1.0, 1.0]
    assert "from 0.0% of white in the border on" in background_finding(grey)
