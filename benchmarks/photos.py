"""Photos to train on: drawings of our own catalogue, in the layout that both sides of a comparison read."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path

from PIL import Image

from loupe.demo.catalogue import write_catalogue

METADATA = "metadata.jsonl"


def write_photos(folder: Path, *, count: int, side_px: int) -> Path:
    """Write `count` PNG files and metadata.jsonl (file_name, text), as the `datasets` library's imagefolder has it."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        catalogue = Path(temporary) / "catalogue"
        write_catalogue(catalogue, n_items=2 * count, seed=0, size_px=side_px)
        with (catalogue / "styles.csv").open(newline="", encoding="utf-8") as file:
            names = {row["id"]: row["productDisplayName"] for row in csv.DictReader(file)}
        pictures = sorted((catalogue / "images").glob("*.jpg"))[:count]
        if len(pictures) < count:
            raise SystemExit(f"the catalogue has {len(pictures)} pictures, {count} were asked for")
        with (folder / METADATA).open("w", encoding="utf-8") as lines:
            for picture in pictures:
                with Image.open(picture) as image:
                    image.convert("RGB").resize((side_px, side_px)).save(folder / f"{picture.stem}.png")
                caption = f"a product photo of {names[picture.stem]}, photo {picture.stem}"
                lines.write(json.dumps({"file_name": f"{picture.stem}.png", "text": caption}) + "\n")
    return folder
