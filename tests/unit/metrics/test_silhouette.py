"""The product mask and what it tells, on drawn pictures with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from loupe.metrics.image_set import (
    CENTRE_OFFSET,
    FOREGROUND_SHARE,
    N_OBJECTS,
    SHARPNESS,
    TOUCHES_BORDER,
    ImageSet,
    RealPhotos,
)
from loupe.metrics.silhouette import (
    centred,
    centring_findings,
    describe,
    eroded,
    laplacian_variance,
    product_mask,
    sharpness_percentiles,
    single_objects,
)
from tests.unit.metrics.image_sets import image_set

SIDE = 112


def white() -> np.ndarray:
    return np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)


def block(top: int, left: int, height: int, width: int, value: int = 60) -> np.ndarray:
    image = white()
    image[top : top + height, left : left + width] = value
    return image


def test_a_block_is_its_own_mask() -> None:
    found = describe(product_mask(block(30, 40, 50, 20)))
    assert found.foreground_share == pytest.approx(1000 / SIDE**2)
    assert found.centre_offset == pytest.approx(np.hypot(55 - 56, 50 - 56) / SIDE)
    assert (found.touches_border, found.n_objects) == (False, 1)


def test_a_white_product_on_white_keeps_its_body() -> None:
    """Its brightest parts are near white; only what reaches the border is background."""
    image = block(30, 30, 50, 50, value=243)
    image[40:60, 40:60] = 255
    assert product_mask(image).sum() == 2500


def test_an_off_white_border_lowers_the_bound_and_a_grey_one_is_no_background() -> None:
    image = block(30, 30, 50, 50)
    image[image == 255] = 236
    assert product_mask(image).sum() == 2500
    image[image == 236] = 220
    found = describe(product_mask(image))
    assert (found.foreground_share, found.touches_border) == (1.0, True)


def test_specks_are_no_product_and_two_things_are_two() -> None:
    image = block(20, 20, 30, 30)
    image[80:84, 80:84] = 0
    assert describe(product_mask(image)).n_objects == 1
    image[70:100, 60:100] = 0
    assert describe(product_mask(image)).n_objects == 2


def test_a_blank_picture_shows_nothing() -> None:
    found = describe(product_mask(white()))
    assert (found.foreground_share, found.centre_offset, found.n_objects) == (0.0, 1.0, 0)
    assert laplacian_variance(white(), product_mask(white())) == 0.0


def test_the_outline_is_left_out_of_what_is_measured() -> None:
    mask = product_mask(block(30, 30, 50, 50))
    assert eroded(mask).sum() == 48 * 48
    thin = np.zeros((SIDE, SIDE), dtype=bool)
    thin[5:7] = True
    assert eroded(thin).sum() == thin.sum()


def test_blur_lowers_sharpness_and_noise_raises_it() -> None:
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 200, (50, 50, 1)).repeat(3, axis=2).astype(np.uint8)
    image = white()
    image[30:80, 30:80] = texture
    inner = eroded(product_mask(image))
    values = [
        laplacian_variance(ndimage.gaussian_filter(image, (sigma, sigma, 0)), inner) for sigma in (0, 0.7, 1.5, 3)
    ]
    assert values == sorted(values, reverse=True)
    flat = block(30, 30, 50, 50)
    assert laplacian_variance(flat, eroded(product_mask(flat))) == 0.0


def test_laplacian_of_a_checkerboard() -> None:
    """Every pixel differs from its four neighbours by v: the Laplacian is +-4v, its variance 16 v^2."""
    board = (np.indices((40, 40)).sum(axis=0) % 2 * 10).astype(np.uint8)[..., None].repeat(3, axis=2)
    inner = np.zeros((40, 40), dtype=bool)
    inner[10:30, 10:30] = True
    assert laplacian_variance(board, inner) == pytest.approx(16 * 10**2)


def measured(offset: float, touches: float, n: float = 1.0, fills: float = 0.2) -> ImageSet:
    arrays = {CENTRE_OFFSET: offset, TOUCHES_BORDER: touches, N_OBJECTS: n, FOREGROUND_SHARE: fills}
    return image_set(1, **{name: np.array([value]) for name, value in arrays.items()})


def real(**arrays: np.ndarray) -> RealPhotos:
    """Photos that keep off the border, and that show a product unless they say otherwise."""
    n = len(next(iter(arrays.values())))
    train = image_set(n, **{FOREGROUND_SHARE: np.full(n, 0.2), TOUCHES_BORDER: np.zeros(n), **arrays})
    return RealPhotos(train=train, held_out=train)


def test_centred_is_inside_the_photos_band_and_off_the_border() -> None:
    tidy = real(**{CENTRE_OFFSET: np.full(50, 0.02)})
    loose = real(**{CENTRE_OFFSET: np.linspace(0, 0.3, 101)})
    assert centred(measured(0.125, 0), tidy).tolist() == [1.0]
    assert centred(measured(0.126, 0), tidy).tolist() == [0.0]
    assert centred(measured(0.28, 0), loose).tolist() == [1.0]
    assert centred(measured(0.0, 1), loose).tolist() == [0.0]


def test_a_single_object_keeps_off_the_border() -> None:
    photos = real(**{CENTRE_OFFSET: np.zeros(2)})
    found = [single_objects(measured(0.0, *case), photos)[0] for case in ((0, 1), (0, 2), (0, 0), (1, 1))]
    assert found == [1.0, 0.0, 0.0, 0.0]


def test_sharpness_is_a_percentile_of_the_train_photos() -> None:
    photos = real(**{SHARPNESS: np.array([1.0, 2, 3, 4, 99]), FOREGROUND_SHARE: np.array([0.2, 0.2, 0.2, 0.2, 0.0])})
    images = image_set(
        5, **{SHARPNESS: np.array([0.5, 2.5, 9.0, 2.0, 2.0]), FOREGROUND_SHARE: np.array([0.3, 0.3, 0.3, 0.3, 0.0])}
    )
    found = sharpness_percentiles(images, photos)
    assert found[:4].tolist() == [0.0, 0.5, 1.0, 0.375]
    assert np.isnan(found[4]), "a picture without a product is not blurred"


def test_a_few_photos_without_a_product_or_far_off_do_not_open_the_band() -> None:
    for offset in (1.0, 0.6):
        fills = np.array([0.2 if offset < 1 else 0.0] * 4 + [0.2] * 296)
        odd = real(**{CENTRE_OFFSET: np.array([offset] * 4 + [0.02] * 296), FOREGROUND_SHARE: fills})
        assert [centred(measured(at, 0), odd)[0] for at in (0.1, 0.2, 1.0)] == [1.0, 0.0, 0.0]
        assert not [*centring_findings(odd)]
    nowhere = real(**{CENTRE_OFFSET: np.ones(5), FOREGROUND_SHARE: np.zeros(5)})
    assert [centred(measured(at, 0), nowhere)[0] for at in (0.1, 1.0)] == [1.0, 0.0]
    loose = real(**{CENTRE_OFFSET: np.linspace(0, 0.3, 101)})
    assert "up to 29.7% of the side off the middle" in "".join(centring_findings(loose))


def garments(n_touching: int, *, fills: float = 0.4) -> RealPhotos:
    """A hundred photos, of which some reach the border."""
    touching = np.repeat([1.0, 0.0], [n_touching, 100 - n_touching])
    return real(**{CENTRE_OFFSET: np.full(100, 0.02), TOUCHES_BORDER: touching, FOREGROUND_SHARE: np.full(100, fills)})


def test_a_picture_may_reach_the_border_where_products_of_the_photos_do() -> None:
    sleeve, moved = measured(0.02, 1, fills=0.4), measured(0.2, 1, fills=0.4)
    no_white = measured(0.0, 1, fills=1.0)
    assert [centred(picture, garments(86))[0] for picture in (sleeve, moved, no_white)] == [1.0, 0.0, 0.0]
    assert "86% of the train photos" in "".join(centring_findings(garments(86)))


def bags(n_at_border: int, fills: np.ndarray) -> RealPhotos:
    """A hundred photos: the first `n_at_border` reach the border and fill as much as is said, the others 0.1."""
    return real(
        **{
            CENTRE_OFFSET: np.full(100, 0.02),
            TOUCHES_BORDER: np.repeat([1.0, 0.0], [n_at_border, 100 - n_at_border]),
            FOREGROUND_SHARE: np.concatenate([fills, np.full(100 - n_at_border, 0.1)]),
        }
    )


def test_a_product_at_the_border_fills_as_much_as_those_of_the_photos_that_are_there() -> None:
    """Not as photos of other products do, nor as two odd ones."""
    large = bags(20, np.linspace(0.7, 0.8, 20))
    assert [centred(measured(0.02, 1, fills=fills), large)[0] for fills in (0.1, 0.79, 0.81, 0.9)] == [1, 1, 0, 0]
    odd = bags(40, np.array([0.94, 0.93, *np.linspace(0.3, 0.35, 38)]))
    assert [centred(measured(0.02, 1, fills=fills), odd)[0] for fills in (0.34, 0.4, 0.93)] == [1.0, 0.0, 0.0]
    assert "fills at most 35% of the picture: that of 40% of the train photos" in "".join(centring_findings(odd))


def test_where_no_photo_shows_a_product_on_white_that_is_said() -> None:
    """Nearly all of a photo counts as product where its background is grey; specks of it may be left."""
    fills = np.array([0.0, 1.0, 0.999, 0.96])
    photos = real(**{CENTRE_OFFSET: np.full(4, 0.02), TOUCHES_BORDER: (fills > 0) * 1.0, FOREGROUND_SHARE: fills})
    assert "no train photo shows a product" in "".join(centring_findings(photos))
    assert [centred(measured(0.02, touches), photos)[0] for touches in (0, 1)] == [1.0, 0.0]


def test_a_few_photos_at_the_border_do_not_let_pictures_reach_it() -> None:
    assert centred(measured(0.02, 1), garments(5)).tolist() == [0.0]
    assert not [*centring_findings(garments(5))]
    assert centred(measured(0.02, 1), garments(6)).tolist() == [1.0]


def test_photos_without_a_white_background_tell_nothing_of_the_border() -> None:
    """All of such a photo counts as product, at the border too."""
    fills = np.repeat([1.0, 0.2], 50)
    photos = real(**{CENTRE_OFFSET: np.full(100, 0.02), TOUCHES_BORDER: (fills == 1) * 1.0, FOREGROUND_SHARE: fills})
    assert centred(measured(0.02, 1), photos).tolist() == [0.0]
