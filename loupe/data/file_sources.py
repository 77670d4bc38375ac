"""The two sources made of a person's own files: `pairs` and `captions-json`.

Captions are taken as they are. Images without a caption and captions without an image are named, all at once.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from loupe.data.items import SourceItem, SourceListing, colliding_ids, is_safe_id, shortened
from loupe.errors import PipelineError, problems_message

PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_FILE_KEYS = ("file", "image", "file_name")
_CAPTION_KEYS = ("caption", "text")


def read_pairs(root: Path) -> SourceListing:
    """Read NNN.png|jpg|jpeg|webp, each with its NNN.txt beside it, in the order of their ids.

    Raises PipelineError naming every image without caption, caption without image, id used twice or unsafe, and text
    file that is not UTF-8.
    """
    photos = _photos(root)
    texts = {path.stem: path for path in _visible_files(root) if path.suffix.lower() == ".txt"}
    problems = _id_problems(photos)
    stems = {photo.stem for photo in photos}
    problems += [f"{photo.name} has no caption; write {photo.stem}.txt" for photo in photos if photo.stem not in texts]
    problems += [
        f"{text.name} has no image; add {stem}.png or .jpg" for stem, text in texts.items() if stem not in stems
    ]
    items = []
    for photo in photos:
        if photo.stem not in texts:
            continue
        try:
            caption = read_utf8(texts[photo.stem]).strip()
        except PipelineError as error:
            problems.append(str(error))
            continue
        items.append(SourceItem(image_id=photo.stem, photo=photo, caption=caption))
    return _listing(root, items, problems)


def read_captions_json(root: Path) -> SourceListing:
    """Read images/ and captions.json, which is {file: caption} or a list of {"file": ..., "caption": ...}.

    In a list `image` and `file_name` may stand for `file`, and `text` for `caption`. File names are those of images/,
    without a folder of their own.

    Raises PipelineError naming every problem of the file, and every image or caption that stands alone.
    """
    path = root / "captions.json"
    if not path.exists():
        raise PipelineError(f"{path} is not there. Expected it beside a folder images/; set data.root to their folder.")
    pairs, problems = _caption_pairs(_json(path))
    photos = _photos(root / "images")
    problems += _id_problems(photos)
    twice = colliding_ids((name, f"entry {number}") for number, (name, _) in enumerate(pairs, start=1))
    problems += [f"captions.json names one file more than once: {line}" for line in twice]
    captions = dict(pairs)
    names = {photo.name for photo in photos}
    problems += [f"images/{name} has no caption in captions.json" for name in sorted(names - captions.keys())]
    problems += [
        f"captions.json names {name!r}, which is no image in images/" for name in captions if name not in names
    ]
    items = [
        SourceItem(image_id=photo.stem, photo=photo, caption=captions[photo.name].strip())
        for photo in photos
        if photo.name in captions
    ]
    return _listing(root, items, problems)


def read_utf8(path: Path) -> str:
    """Read text, a byte-order mark tolerated; anything but UTF-8 is a PipelineError that names the byte."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"{path.name} is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}. Save it as UTF-8."
        ) from None


def _photos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise PipelineError(f"{folder} is not there. Expected a folder of images; set data.root.")
    photos = [path for path in _visible_files(folder) if path.suffix.lower() in PHOTO_SUFFIXES]
    if not photos:
        kinds = ", ".join(suffix.lstrip(".") for suffix in PHOTO_SUFFIXES)
        raise PipelineError(f"{folder} holds no image ({kinds}). Put the images there, or set data.root.")
    return photos


def _visible_files(folder: Path) -> list[Path]:
    """List files by name, without the hidden ones that macOS leaves beside each file it copies."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _id_problems(photos: list[Path]) -> list[str]:
    problems = [
        f"{photo.name!r}: {photo.stem!r} cannot name a file on every system; rename it with letters, digits, - and _"
        for photo in photos
        if not is_safe_id(photo.stem)
    ]
    twice = colliding_ids((photo.stem, photo.name) for photo in photos)
    return problems + [f"one id for more than one image: {line}" for line in twice]


def _json(path: Path) -> Any:
    text = read_utf8(path)
    try:
        return json.loads(text, object_pairs_hook=_object_without_repeats)
    except json.JSONDecodeError as error:
        raise PipelineError(f"{path} line {error.lineno}, column {error.colno}: {error.msg}.") from None


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that occurs twice; json itself would silently keep the last."""
    problems = [f"more than one caption for {name}" for name, n in Counter(name for name, _ in pairs).items() if n > 1]
    if problems:
        raise PipelineError(problems_message("captions.json", shortened(problems)))
    return dict(pairs)


def _caption_pairs(document: Any) -> tuple[list[tuple[str, str]], list[str]]:
    """Return (file name, caption) pairs in the document's order, and what is wrong with the other entries."""
    if isinstance(document, dict):
        entries = list(document.items())
    elif isinstance(document, list):
        entries = [_entry(entry) for entry in document]
    else:
        raise PipelineError(
            'captions.json must hold {"001.png": "a caption"} or [{"file": "001.png", "caption": "a caption"}]; '
            f"found a {type(document).__name__}."
        )
    pairs, problems = [], []
    for number, (name, caption) in enumerate(entries, start=1):
        if not isinstance(name, str) or not isinstance(caption, str):
            problems.append(f"captions.json entry {number}: expected a file name and a caption, both text")
        elif not _is_plain_name(name.removeprefix("images/")):
            problems.append(f"captions.json entry {number}: {name!r} must be the plain name of a file in images/")
        else:
            pairs.append((name.removeprefix("images/"), caption))
    return pairs, problems


def _entry(entry: Any) -> tuple[Any, Any]:
    if not isinstance(entry, dict):
        return None, None
    name = next((entry[key] for key in _FILE_KEYS if key in entry), None)
    caption = next((entry[key] for key in _CAPTION_KEYS if key in entry), None)
    return name, caption


def _is_plain_name(name: str) -> bool:
    return bool(name) and name not in (".", "..") and "/" not in name and "\\" not in name


def _listing(root: Path, items: list[SourceItem], problems: list[str]) -> SourceListing:
    if problems:
        raise PipelineError(problems_message(str(root), shortened(problems)))
    ordered = tuple(sorted(items, key=lambda item: item.image_id))
    return SourceListing(items=ordered, n_rows=len(ordered))
