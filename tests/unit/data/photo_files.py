"""Small photos and sources that the data tests write to disk."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

HEADER = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName"
COLOURS = ("Black", "Brown", "White")


def product(seed: int, size: tuple[int, int] = (48, 48)) -> Image.Image:
    """A blocky shape of its own on white, different for every seed."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 200, size=(4, 4, 3)).astype(np.uint8)
    picture = Image.new("RGB", size, "white")
    inner = (size[0] - 12, size[1] - 12)
    picture.paste(Image.fromarray(cells).resize(inner, Image.Resampling.NEAREST), (6, 6))
    return picture


def quartered(width: int, height: int) -> Image.Image:
    """Red, green / blue, black quarters: orientation can be read off the corners."""
    picture = Image.new("RGB", (width, height), "red")
    draw = ImageDraw.Draw(picture)
    draw.rectangle([width // 2, 0, width, height // 2 - 1], fill=(0, 255, 0))
    draw.rectangle([0, height // 2, width // 2 - 1, height], fill=(0, 0, 255))
    draw.rectangle([width // 2, height // 2, width, height], fill=(0, 0, 0))
    return picture


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def row(image_id: str, *, colour: str = "Black", name: str = "Puma Men Basket Black Casual Shoes", **cells: str) -> str:
    values = {"gender": "Men", "article": "Casual Shoes", "season": "Fall", "year": "2011", "usage": "Casual", **cells}
    middle = [values["gender"], "Footwear", "Shoes", values["article"], colour]
    return ",".join([image_id, *middle, values["season"], values["year"], values["usage"], name])


def write_csv(root: Path, rows: Sequence[str], *, header: str = HEADER) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "styles.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def write_kaggle(root: Path, *, n: int = 40, without_photo: Sequence[int] = ()) -> list[str]:
    """Write `n` shoes in three colours, ids 1000, 1001, ..., each with a photo of its own; return the ids."""
    ids = [str(1000 + i) for i in range(n)]
    write_csv(root, [row(name, colour=COLOURS[i % 3], name=f"Puma Men Model{i} Shoes") for i, name in enumerate(ids)])
    (root / "images").mkdir()
    for i, name in enumerate(ids):
        if i not in without_photo:
            product(i).save(root / "images" / f"{name}.jpg", quality=95)
    return ids


def write_pairs(root: Path, *, n: int = 20) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        product(i).save(root / f"{i:03d}.png")
        (root / f"{i:03d}.txt").write_text(f"picture number {i}\n", encoding="utf-8")
