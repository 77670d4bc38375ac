"""Trained networks on real photos: whatever is done to the photos, the scores that should see it get worse in order.

The photos are those beside the repository; without them these tests are skipped. The scorers are the demo's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from loupe.data.captions import parse_template
from loupe.data.catalogue_source import read_catalogue
from loupe.metrics.image_set import ImageSet, RealPhotos
from loupe.metrics.memorisation import memorised_bound, nearest_train
from loupe.metrics.nulls import real_nulls
from tests.unit.metrics.demo_scorers import DemoScorers, Shown

pytestmark = pytest.mark.photos
SIDE_PX, N = 128, 80
SOFT_PX, BLUR_PX, NOISE = (0.3, 0.5, 0.8), (2.2, 3.0, 4.0), (8, 20, 50)
HUE_DEGREES, SHIFT_PX, DISTINCT = (10, 30, 60), (6, 14, 28), (40, 16, 4)
"""The classifier averages down to 64 px: blur below 2 px and noise are for other scores to see."""


@dataclass(frozen=True, slots=True)
class Photos:
    """Three disjoint sets of real shoes, other products, and the demo's scorers."""

    scorers: DemoScorers
    real: RealPhotos
    train: list[Shown]
    fresh: list[Shown]
    others: list[Shown]

    def changed(self, change: Callable[[Image.Image], Image.Image]) -> ImageSet:
        return self.scorers.measure(
            [Shown(s.cell, np.asarray(change(Image.fromarray(s.pixels))), s.text, s.colour) for s in self.fresh]
        )

    def scores(self, key: str, sets: list[ImageSet]) -> list[float]:
        return [self.scorers.score(key, images, self.real) for images in sets]


def shown(path: Path, index: int, *, caption: str, colour: str) -> Shown:
    with Image.open(path) as photo:
        pixels = np.asarray(photo.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS))
    return Shown((f"photo {index}", 0), pixels, caption, colour)


@pytest.fixture(scope="module")
def photos(shared_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Photos:
    template = parse_template("a professional product photo of {colour} casual shoes")
    listing = read_catalogue(shared_photos, article_type="Casual Shoes", malformed_rows="skip", template=template)
    shoes = {item.image_id: item for item in listing.items if item.photo}
    taken = [list(shoes.values())[i] for i in np.random.default_rng(0).permutation(len(shoes))]
    pictures = [
        shown(item.photo, i, caption=item.caption, colour=item.attributes["colour"]) for i, item in enumerate(taken)
    ]
    others = [path for path in sorted((shared_photos / "images").glob("*.jpg")) if path.stem not in shoes][:N]
    assert (len(pictures), len(others)) == (300, N)
    train, held_out, fresh = pictures[: 300 - 2 * N], pictures[300 - 2 * N : 300 - N], pictures[300 - N :]
    scorers = DemoScorers(tmp_path_factory.mktemp("store"))
    real = RealPhotos(train=scorers.measure(train), held_out=scorers.measure(held_out))
    foreign = [shown(p, i, caption=fresh[i].text, colour=fresh[i].colour) for i, p in enumerate(others)]
    return Photos(scorers, real, train, fresh, foreign)


def noised(image: Image.Image, sd: float) -> Image.Image:
    rng = np.random.default_rng(int(np.asarray(image).sum()))
    pixels = np.asarray(image) + rng.normal(0, sd, (SIDE_PX, SIDE_PX, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def hue_shifted(image: Image.Image, degrees: float) -> Image.Image:
    hsv = np.array(image.convert("HSV"))
    hsv[..., 0] = (hsv[..., 0].astype(int) + round(degrees * 256 / 360)) % 256
    return Image.fromarray(hsv, "HSV").convert("RGB")


def shifted(image: Image.Image, by_px: int) -> Image.Image:
    pixels = np.full((SIDE_PX, SIDE_PX, 3), 255, dtype=np.uint8)
    pixels[by_px:, by_px:] = np.asarray(image)[: SIDE_PX - by_px, : SIDE_PX - by_px]
    return Image.fromarray(pixels)


def blurred(image: Image.Image, by_px: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(by_px))


@pytest.fixture(scope="module")
def ladders(photos: Photos) -> dict[str, list[ImageSet]]:
    """Kind of damage -> the fresh photos untouched, then with more and more of it."""
    clean = photos.scorers.measure(photos.fresh)
    damage = {
        "softness": (blurred, SOFT_PX), "blur": (blurred, BLUR_PX), "noise": (noised, NOISE),
        "hue": (hue_shifted, HUE_DEGREES), "shift": (shifted, SHIFT_PX),
    }  # fmt: skip
    found = {
        name: [
            clean,
            *(photos.changed(partial(change, **{list(change.__annotations__)[1]: how})) for how in severities),
        ]
        for name, (change, severities) in damage.items()
    }
    found["collapse"] = [clean, *(clean.rows([i % kept for i in range(N)]) for kept in DISTINCT)]
    found["others"] = [clean, photos.scorers.measure(photos.others)]
    return found


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("blur", "fd_demo"), ("noise", "cmmd_demo"), ("hue", "fd_demo"), ("hue", "kid_demo"), ("hue", "cmmd_demo"),
        ("shift", "fd_demo"), ("shift", "kid_demo"), ("collapse", "fd_demo"), ("collapse", "kid_demo"),
        ("others", "fd_demo"), ("others", "kid_demo"), ("others", "cmmd_demo"),
    ],
)  # fmt: skip
def test_distance_grows_with_the_damage(
    photos: Photos, ladders: dict[str, list[ImageSet]], kind: str, key: str
) -> None:
    distances = photos.scores(key, ladders[kind])
    assert all(less < more for less, more in pairwise(distances)), distances


@pytest.mark.parametrize(
    ("kind", "key", "way"),
    [
        ("softness", "sharpness_pct", -1), ("noise", "sharpness_pct", 1), ("hue", "colour_share", -1),
        ("hue", "colour_ratio", -1), ("shift", "centred_ok", -1), ("collapse", "vendi_demo", -1),
        ("collapse", "coverage_demo", -1),
        ("collapse", "recall_demo", -1), ("others", "precision_demo", -1), ("others", "colour_share", -1),
    ],
)  # fmt: skip
def test_the_score_made_for_it_sees_the_damage_in_order(
    photos: Photos, ladders: dict[str, list[ImageSet]], kind: str, key: str, way: int
) -> None:
    scores = [way * score for score in photos.scores(key, ladders[kind])]
    assert all(before < after for before, after in pairwise(scores)), scores


def test_great_damage_is_outside_and_no_damage_inside_what_real_photos_score(
    photos: Photos, ladders: dict[str, list[ImageSet]]
) -> None:
    seen_by = {
        "blur": "kid_demo", "noise": "cmmd_demo", "hue": "kid_demo", "shift": "kid_demo", "collapse": "kid_demo",
        "others": "cmmd_demo",
    }  # fmt: skip
    specs = {key: photos.scorers.specs[key] for key in ("kid_demo", "cmmd_demo")}
    nulls = real_nulls(photos.real, specs, n_generated=N, n_prompts=N, n_draws=40, rng=np.random.default_rng(1))
    for key, null in nulls.items():
        spread = null.hi - null.lo
        assert null.lo - spread < photos.scorers.score(key, ladders["blur"][0], photos.real) < null.hi + spread
    for kind, key in seen_by.items():
        worst = photos.scorers.score(key, ladders[kind][-1], photos.real)
        assert worst > nulls[key].hi + (nulls[key].hi - nulls[key].lo), (kind, key)


def test_pictures_of_other_products_are_the_farthest_of_all(photos: Photos, ladders: dict[str, list[ImageSet]]) -> None:
    for key in ("fd_demo", "kid_demo", "cmmd_demo"):
        others, *damaged = (
            photos.scorers.score(key, ladders[kind][-1], photos.real)
            for kind in ("others", "blur", "noise", "hue", "shift", "collapse")
        )
        assert others > max(damaged)


def test_twenty_copied_photos_raise_the_memorised_share_and_are_named(photos: Photos) -> None:
    copied = [
        Shown(fresh.cell, photos.train[i].pixels if i < 20 else fresh.pixels, fresh.text, fresh.colour)
        for i, fresh in enumerate(photos.fresh)
    ]
    before, after = (photos.scorers.measure(pictures) for pictures in (photos.fresh, copied))
    shares = photos.scores("memor_share_demo", [before, after])
    assert shares[1] >= shares[0] + 0.15
    assert shares[1] > memorised_bound(N, N, upper_tail=0.01) > shares[0]
    nearest = nearest_train(after, photos.real.train)
    assert [photos.real.train.cells[row] for row in nearest.row_N[:20]] == [p.cell for p in photos.train[:20]]
    assert nearest.distance_N[:20] == pytest.approx(np.zeros(20), abs=1e-4)


def test_batch_size_and_order_do_not_change_a_score(photos: Photos, tmp_path: Path) -> None:
    """Each time with a store of its own, so that everything is computed anew."""
    keys = ("fd_demo", "kid_demo", "cmmd_demo", "clip_demo", "is_demo", "vendi_demo", "colour_share")
    by_batch = {}
    for batch_size in (1, 7, 64):
        scorers = DemoScorers(tmp_path / str(batch_size))
        some = photos.fresh[:24]  # alone each takes a call of its own
        pictures = some if batch_size == 64 else some[::-1]
        images = scorers.measure(pictures, batch_size=batch_size)
        by_batch[batch_size] = [scorers.score(key, images, photos.real) for key in keys]
    assert by_batch[1] == pytest.approx(by_batch[64], rel=1e-4)
    assert by_batch[7] == pytest.approx(by_batch[64], rel=1e-4)
