"""Writes rendered products in the layout of the Kaggle fashion dataset: styles.csv and images/<id>.jpg.

Like the real file, a few rows hold an unquoted comma in the last column and a few cells are empty. Catalogue look only.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from loupe.atomic_io import write_bytes, write_text
from loupe.demo.catalogue.items import ARTICLE_TYPES, ItemSpec, paint, sample_item
from loupe.demo.catalogue.palette import COLOURS
from loupe.demo.catalogue.scene import render_item

HEADER = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName"
CATEGORIES: dict[str, tuple[str, str]] = {
    "Casual Shoes": ("Footwear", "Shoes"),
    "Handbags": ("Accessories", "Bags"),
    "Tshirts": ("Apparel", "Topwear"),
    "Caps": ("Accessories", "Headwear"),
    "Watches": ("Accessories", "Watches"),
    "Backpacks": ("Accessories", "Bags"),
    "Boots": ("Footwear", "Shoes"),
    "Bottles": ("Accessories", "Bottles"),
}
MAIN_TYPE_SHARE = 0.75
"""Share of the first article type asked for; the others share the rest evenly."""
FAMILY_SHARE = 0.2
MALFORMED_SHARE, MIN_MALFORMED = 0.01, 3
SEASONLESS_SHARE = 0.02
JPEG_QUALITY = 95
PHOTO_ZOOM = 0.88
"""The products of a catalogue folder keep a wider white border than the border ring that is judged (6 % of the side):
a photographer leaves room, and so a blurred edge is not taken for a grey background."""


class Colours:
    """Deals the twelve colours evenly: each is dealt once before any comes again."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._left: list[str] = []

    def deal(self) -> str:
        """The next colour."""
        if not self._left:
            self._left = [COLOURS[int(place)] for place in self._rng.permutation(len(COLOURS))]
        return self._left.pop()


def _variants(item: ItemSpec, size: int, colours: Colours, rng: np.random.Generator) -> list[ItemSpec]:
    """The item and `size` - 1 copies of the same shape, brand, model and gender in other colours."""
    family = [item]
    while len(family) < size:
        colour = colours.deal()
        if all(colour != member.colour for member in family):
            family.append(replace(item, colour=colour, **paint(colour, rng)))
    return family


def _draw_type(article_types: Sequence[str], colours: Colours, count: int, rng: np.random.Generator) -> list[ItemSpec]:
    """`count` items of the types given, evenly, about FAMILY_SHARE of them in families of two to four colours."""
    items: list[ItemSpec] = []
    while len(items) < count:
        article_type = article_types[len(items) % len(article_types)]
        item = sample_item(rng, article_type=article_type, colour=colours.deal())
        item = replace(item, model=f"{item.model} {int(rng.integers(100, 1000))}")
        starts_family = rng.random() < FAMILY_SHARE / (3 - 2 * FAMILY_SHARE)
        size = min(int(rng.integers(2, 5)), count - len(items)) if starts_family else 1
        items.extend(_variants(item, size, colours, rng))
    return items


def draw_items(rng: np.random.Generator, *, n_items: int, article_types: Sequence[str]) -> list[ItemSpec]:
    """The products of a catalogue: mostly the first article type, colours even. Raises KeyError for an unknown type."""
    n_main = n_items if len(article_types) == 1 else round(MAIN_TYPE_SHARE * n_items)
    items = _draw_type(article_types[:1], Colours(rng), n_main, rng)
    if n_items > n_main:
        items += _draw_type(article_types[1:], Colours(rng), n_items - n_main, rng)
    return [items[int(place)] for place in rng.permutation(len(items))]


def _row(item: ItemSpec, number: int, *, malformed: bool, seasonless: bool) -> str:
    ending = ", Limited Edition" if malformed else ""
    name = f"{item.brand} {item.gender} {item.model} {item.colour} {item.article_type}{ending}"
    season = "" if seasonless else item.season
    cells = (str(number), item.gender, *CATEGORIES[item.article_type], item.article_type, item.colour, season)
    return ",".join((*cells, str(item.year), item.usage, name))


def _jpeg(item: ItemSpec, size_px: int) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(render_item(item, look="catalogue", size_px=size_px, zoom=PHOTO_ZOOM))
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def write_catalogue(
    root: Path, *, n_items: int, seed: int, size_px: int, article_types: Sequence[str] = ARTICLE_TYPES
) -> list[ItemSpec]:
    """Write `n_items` products to `root` (styles.csv last) and return them in the order of the file.

    The first of `article_types` gets three quarters of the items. Equal arguments give equal bytes (same Pillow).
    Raises KeyError for an unknown article type, OSError if the folder cannot be written.
    """
    rng = np.random.default_rng(seed)
    items = draw_items(rng, n_items=n_items, article_types=article_types)
    numbers = rng.choice(np.arange(10_000, 60_000), size=n_items, replace=False)
    n_malformed = min(n_items, max(MIN_MALFORMED, round(MALFORMED_SHARE * n_items)))
    malformed = set(rng.choice(n_items, size=n_malformed, replace=False).tolist())
    seasonless = set(rng.choice(n_items, size=round(SEASONLESS_SHARE * n_items), replace=False).tolist())
    lines = [HEADER]
    for place, (item, number) in enumerate(zip(items, numbers, strict=True)):
        write_bytes(root / "images" / f"{number}.jpg", _jpeg(item, size_px))
        lines.append(_row(item, int(number), malformed=place in malformed, seasonless=place in seasonless))
    write_text(root / "styles.csv", "\n".join(lines) + "\n")
    return items
