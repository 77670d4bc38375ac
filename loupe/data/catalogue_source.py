"""The `kaggle-fashion` source: styles.csv beside images/<id>.jpg, one article type of it.

It decides which rows are examples and what they say; it opens no photo.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from loupe.data.captions import CaptionTemplate
from loupe.data.csv_rows import CsvRow, CsvTable, read_csv_rows
from loupe.data.items import SourceItem, SourceListing, colliding_ids, is_safe_id, shortened
from loupe.data.product_names import brand_of, colour_words, family_of
from loupe.errors import PipelineError, nearest_names, problems_message

_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")


def read_catalogue(
    root: Path, *, article_type: str, malformed_rows: Literal["repair", "skip"], template: CaptionTemplate
) -> SourceListing:
    """Read the rows of one article type, in the file's order, each with its photo where that is there.

    Raises PipelineError for an unusable file, an unknown article type (with the nearest ones), duplicate or unsafe
    ids, and a folder without a single one of the photos.
    """
    path = root / "styles.csv"
    table = read_csv_rows(path, malformed_rows=malformed_rows)
    rows = _of_article_type(path, table, article_type)
    _check_ids(path, rows)
    photos = _photos_by_id(root / "images")
    colours = colour_words({row.cells["baseColour"] for row in table.rows})
    items = tuple(_item(row, photos.get(row.cells["id"]), colours, template) for row in rows)
    if all(item.photo is None for item in items):
        raise PipelineError(
            f"{root / 'images'}: none of the {len(items)} photos of {article_type!r} is there "
            f"(looked for {items[0].image_id}.jpg, ...). Download photos into it, or set data.root."
        )
    return SourceListing(items=items, n_rows=table.n_rows, malformed_rows=table.malformed_rows)


def _of_article_type(path: Path, table: CsvTable, article_type: str) -> list[CsvRow]:
    rows = [row for row in table.rows if row.cells["articleType"] == article_type]
    if rows:
        return rows
    known = sorted({row.cells["articleType"] for row in table.rows} - {""})
    nearest = nearest_names(article_type, known) or known[:10]
    raise PipelineError(
        f"{path} has no row with articleType {article_type!r}. Set data.article_type to one of its {len(known)}, "
        f"e.g. {', '.join(nearest)}."
    )


def _check_ids(path: Path, rows: list[CsvRow]) -> None:
    problems = [
        f"line {row.line}: id {row.cells['id']!r} cannot name a file; use letters, digits, - and _"
        for row in rows
        if not is_safe_id(row.cells["id"])
    ]
    named = [(row.cells["id"], f"line {row.line}") for row in rows]
    problems += [f"the same id more than once: {line}" for line in colliding_ids(named)]
    if problems:
        raise PipelineError(problems_message(str(path), shortened(problems)))


def _photos_by_id(folder: Path) -> dict[str, Path]:
    """List the folder once; where an id has several files, the first suffix of _PHOTO_SUFFIXES wins."""
    if not folder.is_dir():
        raise PipelineError(f"{folder} is not there. Expected the photos as {folder / '<id>.jpg'}; set data.root.")
    files = [path for path in folder.iterdir() if path.suffix.lower() in _PHOTO_SUFFIXES]
    files.sort(key=lambda path: (_PHOTO_SUFFIXES.index(path.suffix.lower()), path.name), reverse=True)
    return {path.stem: path for path in files}


def _item(row: CsvRow, photo: Path | None, colours: frozenset[str], template: CaptionTemplate) -> SourceItem:
    cells = row.cells
    name = cells["productDisplayName"]
    values = {
        "article_type": cells["articleType"],
        "colour": cells["baseColour"],
        "gender": cells["gender"],
        "season": cells["season"],
        "usage": cells["usage"],
        # pandas writes a whole-number column with gaps as 2012.0
        "year": cells["year"].removesuffix(".0"),
        "brand": brand_of(name, colours),
        "family": family_of(name, cells["articleType"], colours),
    }
    attributes = {key: value for key, value in values.items() if value}
    return SourceItem(image_id=cells["id"], photo=photo, caption=template.caption(attributes), attributes=attributes)
