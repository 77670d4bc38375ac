"""The renderer: repeatable, varied, white where it must be; the folder it fills: Kaggle's layout to the byte."""

import csv
import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loupe.demo.catalogue import ARTICLE_TYPES, COLOURS, render_item, sample_item, write_catalogue
from loupe.demo.catalogue.drawing import Drawing, rasterise
from loupe.demo.catalogue.palette import FAMILIES


def ring(picture: np.ndarray) -> np.ndarray:
    side = picture.shape[0]
    width = round(0.06 * side)
    mask = np.ones((side, side), dtype=bool)
    mask[width:-width, width:-width] = False
    return picture.min(axis=-1)[mask]


@pytest.mark.parametrize("look", ["everyday", "catalogue"])
@pytest.mark.parametrize("article_type", ARTICLE_TYPES)
def test_the_same_item_is_the_same_picture_and_another_item_is_not(article_type, look):
    item = sample_item(np.random.default_rng(3), article_type=article_type)
    other = sample_item(np.random.default_rng(4), article_type=article_type)
    first = render_item(item, look=look, size_px=64)
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, render_item(item, look=look, size_px=64))
    assert np.abs(first.astype(int) - render_item(other, look=look, size_px=64)).mean() > 1


def test_a_hundred_shoes_are_a_hundred_pictures():
    rng = np.random.default_rng(0)
    items = [sample_item(rng, article_type="Casual Shoes", colour="Red") for _ in range(100)]
    assert len({render_item(item, look="catalogue", size_px=64).tobytes() for item in items}) == 100


@pytest.mark.parametrize("size_px", [96, 128])
def test_catalogue_look_keeps_the_border_white_and_fills_the_frame(size_px):
    rng = np.random.default_rng(1)
    for article_type in ARTICLE_TYPES:
        for colour in ("White", "Black", "Red"):
            item = sample_item(rng, article_type=article_type, colour=colour)
            picture = render_item(item, look="catalogue", size_px=size_px)
            assert ring(picture).min() >= 250
            rows, columns = np.nonzero(picture.min(axis=-1) < 225)
            assert max(np.ptp(rows) / 0.80, np.ptp(columns) / 0.84) >= 0.93 * size_px


def test_everyday_look_is_never_a_white_background():
    rng = np.random.default_rng(2)
    shares = [(ring(render_item(sample_item(rng), look="everyday", size_px=64)) >= 240).mean() for _ in range(60)]
    assert max(shares) < 0.2


def test_the_colour_asked_for_is_the_colour_seen():
    rng = np.random.default_rng(5)
    for colour, rgb in FAMILIES.items():
        item = sample_item(rng, article_type="Tshirts", colour=colour)
        middle = render_item(item, look="catalogue", size_px=64)[36:56, 26:38].reshape(-1, 3)
        seen = np.median(middle, axis=0)
        nearest = min(FAMILIES, key=lambda name: np.abs(np.asarray(FAMILIES[name]) - seen).sum())
        assert nearest == colour, (colour, rgb, seen)


def test_edges_are_smooth_and_straight_alpha_does_not_leak_dark_fringes():
    drawing = Drawing()
    drawing.fill(
        np.array([(0.0, 0.0), (10.5, 0.0), (10.5, 20.0), (0.0, 20.0)]), (200, 100, 50), light=((1.0, 1.0),), edge=0
    )
    rgba = rasterise(drawing, matrix=np.array([[1.0, 0, 5], [0, 1.0, 5]]), size_px=32)
    alpha = rgba[10, :, 3]
    assert set(np.unique(alpha)) > {0.0, 1.0}, "no anti-aliased pixel at the half-covered column"
    covered = alpha > 0
    np.testing.assert_allclose(
        rgba[10, covered, :3] / alpha[covered, None], np.tile([200, 100, 50], (covered.sum(), 1)) / 255, atol=0.01
    )


def test_an_unknown_look_is_refused():
    with pytest.raises(ValueError, match="everyday"):
        render_item(sample_item(np.random.default_rng(0)), look="studio", size_px=64)


def test_the_folder_has_kaggles_layout_with_malformed_rows_and_families(tmp_path: Path):
    items = write_catalogue(tmp_path, n_items=120, seed=9, size_px=32)
    lines = (tmp_path / "styles.csv").read_text(encoding="utf-8").splitlines()
    assert (
        lines[0] == "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName"
    )
    rows = list(csv.reader(lines[1:]))
    assert len(rows) == 120
    assert Counter(len(row) for row in rows)[11] >= 3
    assert {len(row) for row in rows} == {10, 11}
    assert [row[4] for row in rows] == [item.article_type for item in items]
    assert Counter(row[4] for row in rows)["Casual Shoes"] == 90
    assert len({row[4] for row in rows}) == len(ARTICLE_TYPES)
    assert sorted(path.stem for path in (tmp_path / "images").iterdir()) == sorted(row[0] for row in rows)
    assert len({row[0] for row in rows}) == 120
    colours = Counter(row[5] for row in rows if row[4] == "Casual Shoes")
    assert set(colours) == set(COLOURS)
    assert max(colours.values()) - min(colours.values()) <= 3
    families = Counter((item.brand, item.model) for item in items)
    in_families = sum(size for size in families.values() if size > 1) / 120
    assert 0.08 <= in_families <= 0.4
    with Image.open(tmp_path / "images" / f"{rows[0][0]}.jpg") as picture:
        assert picture.size == (32, 32)


def test_colour_variants_share_everything_but_the_paint(tmp_path: Path):
    items = write_catalogue(tmp_path, n_items=120, seed=9, size_px=16)
    groups: dict[tuple[str, str], list] = {}
    for item in items:
        groups.setdefault((item.brand, item.model), []).append(item)
    families = [group for group in groups.values() if len(group) > 1]
    assert families
    paint = {"colour": "", "rgb": (), "accent_rgb": (), "trim_rgb": (), "lace_rgb": ()}
    for family in families:
        assert len({item.colour for item in family}) == len(family)
        assert len({dataclasses.replace(item, **paint) for item in family}) == 1


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(tmp_path: Path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_catalogue(tmp_path / name, n_items=12, seed=seed, size_px=32)
    contents = {
        name: {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in "abc"
    }
    assert contents["a"] == contents["b"]
    assert contents["a"] != contents["c"]


def test_one_article_type_can_be_asked_for(tmp_path: Path):
    items = write_catalogue(tmp_path, n_items=10, seed=1, size_px=16, article_types=("Watches",))
    assert {item.article_type for item in items} == {"Watches"}
    with pytest.raises(KeyError):
        write_catalogue(tmp_path, n_items=10, seed=1, size_px=16, article_types=("Zeppelins",))
