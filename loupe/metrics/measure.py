"""From image files and texts to image sets: every extractor once per image and text, through the feature store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loupe.errors import PipelineError, problems_message
from loupe.metrics import image_set as names
from loupe.metrics.colour_families import family_index
from loupe.metrics.extractor_keys import pixel_measure_kind
from loupe.metrics.extractors import Extractors, TextExtractor
from loupe.metrics.feature_store import Compute, complete_arrays, stored_arrays, stored_keys
from loupe.metrics.image_set import ImageSet, asked_colour_classes
from loupe.metrics.images import ImageFile, MadeImage
from loupe.metrics.pixel_measures import measure_pixels
from loupe.workstore import WorkStore


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image to measure."""

    cell: tuple[str, int]
    """(prompt id, seed index), or (image id, 0) for a real photo."""
    file: ImageFile | MadeImage
    text: str
    """Its prompt or caption."""
    colour: str | None
    """The colour that the text asks for."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What it took until the store had all features of some rows."""

    computed: int
    """Images and texts that an extractor had to look at, each counted once per extractor."""
    reused: int
    long_texts: tuple[str, ...] = ()
    """Texts that a tokenizer cuts: their score speaks of their beginning only."""


def measure_images(
    rows: Sequence[ImageRow], extractors: Extractors, store: WorkStore, *, batch_size: int, what: str
) -> tuple[ImageSet, Measured]:
    """Return the rows with their features, in the order given; see `complete_features`."""
    measured = complete_features(rows, extractors, store, batch_size=batch_size, what=what)
    return read_features(rows, extractors, store), measured


def complete_features(
    rows: Sequence[ImageRow], extractors: Extractors, store: WorkStore, *, batch_size: int, what: str
) -> Measured:
    """Let every extractor look at every row, once ever per content; the features stay in the store, not in memory.

    The files must have been checked (`check_image_files`): features are filed under the hash that was recorded.
    Raises PipelineError, before anything is measured, when a network that is needed does not load or was never trained.
    """
    _load_needed(rows, extractors, store)
    counts = []
    for source in _sources(extractors):
        read = _reader(rows, source)
        counts.append(
            complete_arrays(
                store,
                source.kind,
                _keys(rows, source),
                read=read,
                load=source.load,
                batch_size=batch_size,
                what=f"{what}: {source.name}",
                unit=source.unit,
                name=_namer(rows, source),
            )
        )
    return Measured(
        computed=sum(c.computed for c in counts),
        reused=sum(c.reused for c in counts),
        long_texts=_cut_texts(rows, extractors, store),
    )


def _load_needed(rows: Sequence[ImageRow], extractors: Extractors, store: WorkStore) -> None:
    """Load every network that has something to look at; each stays loaded."""
    problems: dict[str, None] = {}
    for source in _sources(extractors):
        keys = set(_keys(rows, source))
        if stored_keys(store, source.kind, keys) != keys:
            try:
                source.load()
            except PipelineError as error:
                problems[str(error)] = None
    if problems:
        raise PipelineError(problems_message("evaluate.extractors", list(problems)))


def read_features(rows: Sequence[ImageRow], extractors: Extractors, store: WorkStore) -> ImageSet:
    """Return the rows with all that was stored of them; KeyError where `complete_features` has not been called."""
    colours = [row.colour for row in rows]
    arrays = {names.ASKED_FAMILY: np.array([family_index(colour) for colour in colours], dtype=np.int64)}
    for extractor in extractors.members:
        classes = () if isinstance(extractor, TextExtractor) else extractor.colours
        if classes:
            name = f"{extractors.prefix(extractor)}.{names.ASKED_COLOUR.partition('.')[2]}"
            arrays[name] = asked_colour_classes(colours, classes)
    for source in _sources(extractors):
        for name, array in stored_arrays(store, source.kind, _keys(rows, source)).items():
            if source.unit == "image" or name == "text":
                arrays[f"{source.prefix}.{name}"] = array
    return ImageSet(cells=tuple(row.cell for row in rows), arrays=arrays)


@dataclass(frozen=True, slots=True)
class _Source:
    """One function of pictures or of texts, and where its results are kept."""

    prefix: str
    """Of its arrays in an image set."""
    name: str
    kind: str
    load: Callable[[], Compute]
    unit: Literal["image", "text"]


def _sources(extractors: Extractors) -> Iterator[_Source]:
    yield _Source("pixels", "pixels", pixel_measure_kind(), lambda: measure_pixels, "image")
    for member in extractors.members:
        prefix, name, kind = extractors.prefix(member), member.info.name, member.key.kind
        if isinstance(member, TextExtractor):
            yield _Source(prefix, name, kind, _pictures_of(member), "image")
            yield _Source(prefix, name, f"{kind}-texts", _texts_of(member), "text")
        else:
            yield _Source(prefix, name, kind, member.load, "image")


def _pictures_of(extractor: TextExtractor) -> Callable[[], Compute]:
    return lambda: extractor.load().images


def _texts_of(extractor: TextExtractor) -> Callable[[], Compute]:
    return lambda: extractor.load().texts


def _cut_texts(rows: Sequence[ImageRow], extractors: Extractors, store: WorkStore) -> tuple[str, ...]:
    by_text = list({row.text: row for row in rows}.values())
    found: dict[str, None] = {}
    for source in (source for source in _sources(extractors) if source.unit == "text" and by_text):
        arrays = stored_arrays(store, source.kind, _keys(by_text, source))
        is_cut = arrays["n_tokens"] > arrays["context_length"]
        found |= {row.text: None for row, cut in zip(by_text, is_cut, strict=True) if cut}
    return tuple(found)


def _keys(rows: Sequence[ImageRow], source: _Source) -> list[str]:
    if source.unit == "image":
        return [row.file.sha256 for row in rows]
    return [hashlib.sha256(row.text.encode("utf-8")).hexdigest() for row in rows]


def _reader(rows: Sequence[ImageRow], source: _Source) -> Callable[[int], object]:
    if source.unit == "image":
        return lambda index: rows[index].file.pixels()
    return lambda index: rows[index].text


def _namer(rows: Sequence[ImageRow], source: _Source) -> Callable[[int], str]:
    """Return what messages call row i: its file, or its text."""
    if source.unit == "text":
        return lambda index: repr(rows[index].text)
    return lambda index: str(getattr(rows[index].file, "path", "a made picture"))
