"""From image files and texts to an ImageSet: every extractor once per image and text, through the feature store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loupe.metrics import image_set as names
from loupe.metrics.colour_families import family_index
from loupe.metrics.extractors import Extractors, PictureExtractor, TextExtractor, pixel_measure_kind
from loupe.metrics.feature_store import Compute, Gathered, gather_arrays
from loupe.metrics.image_set import ImageSet, asked_colour_classes
from loupe.metrics.images import ImageFile, MadeImage, Pixels
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
    """Images with their features, in the order of the rows given."""

    images: ImageSet
    computed: int
    """Images and texts that an extractor had to look at, each counted once per extractor."""
    reused: int
    long_texts: tuple[str, ...]
    """Texts that a tokenizer cuts: their score speaks of their beginning only."""


def measure_images(
    rows: Sequence[ImageRow], extractors: Extractors, store: WorkStore, *, batch_size: int, what: str
) -> Measured:
    """Measure every row with every extractor; features of the same bytes are computed once, ever.

    The files must have been checked (`check_image_files`): features are filed under the hash that was recorded.
    """
    work = _Work(rows, store, batch_size, what)
    pixels = work.pictures("pixels", pixel_measure_kind(), lambda: measure_pixels)
    arrays = {f"pixels.{name}": array for name, array in pixels.arrays.items()}
    arrays[names.ASKED_FAMILY] = np.array([family_index(row.colour) for row in rows], dtype=np.int64)
    parts, long_texts = [pixels], []
    for extractor in extractors.members:
        prefix = extractors.prefix(extractor)
        if isinstance(extractor, PictureExtractor):
            found = work.pictures(extractor.info.name, extractor.kind, extractor.load)
            arrays.update({f"{prefix}.{name}": array for name, array in found.arrays.items()})
            if extractor.colours:
                classes = asked_colour_classes([row.colour for row in rows], extractor.colours)
                arrays[f"{prefix}.{names.ASKED_COLOUR.partition('.')[2]}"] = classes
            parts.append(found)
            continue
        found, texts = work.both(extractor)
        arrays.update({f"{prefix}.{name}": array for name, array in found.arrays.items()})
        arrays.update({f"{prefix}.text": array for name, array in texts.arrays.items() if name == "text"})
        parts += [found, texts]
        long_texts += _long_texts([row.text for row in rows], texts)
    return Measured(
        images=ImageSet(cells=tuple(row.cell for row in rows), arrays=arrays),
        computed=sum(part.computed for part in parts),
        reused=sum(part.reused for part in parts),
        long_texts=tuple(dict.fromkeys(long_texts)),
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """The rows and where their features are kept."""

    rows: Sequence[ImageRow]
    store: WorkStore
    batch_size: int
    what: str

    def pictures(self, name: str, kind: str, load: Callable[[], Compute]) -> Gathered:
        """Return what a network, or a function of pixels, says about every picture."""
        hashes = [row.file.sha256 for row in self.rows]
        return self._gather(kind, hashes, name=name, read=self._pixels, load=load, unit="image")

    def both(self, extractor: TextExtractor) -> tuple[Gathered, Gathered]:
        """Return what a network says about every picture and about every text."""
        name, load = extractor.info.name, extractor.load
        pictures = self.pictures(name, extractor.kind, lambda: load().images)
        texts = [row.text for row in self.rows]
        hashes = [hashlib.sha256(text.encode("utf-8")).hexdigest() for text in texts]
        kind = f"{extractor.kind}-texts"
        read, load_texts = texts.__getitem__, lambda: load().texts
        return pictures, self._gather(kind, hashes, name=name, read=read, load=load_texts, unit="text")

    def _pixels(self, index: int) -> Pixels:
        return self.rows[index].file.pixels()

    def _gather(
        self,
        kind: str,
        keys: Sequence[str],
        *,
        name: str,
        read: Callable[[int], Pixels | str],
        load: Callable[[], Compute],
        unit: str,
    ) -> Gathered:
        what = f"{self.what}: {name}"
        return gather_arrays(
            self.store, kind, keys, read=read, load=load, batch_size=self.batch_size, what=what, unit=unit
        )


def _long_texts(texts: Sequence[str], found: Gathered) -> list[str]:
    if not found.arrays:
        return []
    cut: NDArray = found.arrays["n_tokens"] > found.arrays["context_length"]
    return [text for text, is_cut in zip(texts, cut, strict=True) if is_cut]
