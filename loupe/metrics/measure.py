"""From image files and texts to an ImageSet: every extractor once per image and text, through the feature store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loupe.metrics import image_set as names
from loupe.metrics.colour_families import family_index
from loupe.metrics.extractors import Extractors, pixel_measure_kind
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
    """Texts that the CLIP tokenizer cuts: their score speaks of their beginning only."""


def measure_images(
    rows: Sequence[ImageRow], extractors: Extractors, store: WorkStore, *, batch_size: int, what: str
) -> Measured:
    """Measure every row with every extractor; features of the same bytes are computed once, ever.

    The files must have been checked (`check_image_files`): features are filed under the hash that was recorded.
    """
    hashes = [row.file.sha256 for row in rows]
    texts = [row.text for row in rows]
    clip = extractors.clip

    def gather(name: str, kind: str, load: Callable[[], Compute]) -> Gathered:
        def read(index: int) -> Pixels:
            return rows[index].file.pixels()

        return gather_arrays(store, kind, hashes, read=read, load=load, batch_size=batch_size, what=f"{what}: {name}")

    inception = gather(extractors.inception.info.name, extractors.inception.kind, extractors.inception.load)
    pictures = gather(clip.info.name, clip.kind, lambda: clip.load().images)
    pixels = gather("pixels", pixel_measure_kind(), lambda: measure_pixels)
    prompts = gather_arrays(
        store,
        f"{clip.kind}-texts",
        [hashlib.sha256(text.encode("utf-8")).hexdigest() for text in texts],
        read=texts.__getitem__,
        load=lambda: clip.load().texts,
        batch_size=batch_size,
        what=f"{what}: {clip.info.name}",
        unit="text",
    )
    arrays = _named_arrays(inception.arrays, pictures.arrays, prompts.arrays, pixels.arrays)
    arrays[names.ASKED_FAMILY] = np.array([family_index(row.colour) for row in rows], dtype=np.int64)
    if names.COLOUR_LOGITS in arrays:
        arrays[names.ASKED_COLOUR] = asked_colour_classes([row.colour for row in rows], extractors.inception.colours)
    parts = (inception, pictures, pixels, prompts)
    return Measured(
        images=ImageSet(cells=tuple(row.cell for row in rows), arrays=arrays),
        computed=sum(part.computed for part in parts),
        reused=sum(part.reused for part in parts),
        long_texts=_long_texts(texts, prompts.arrays),
    )


def _named_arrays(
    inception: Mapping[str, NDArray],
    pictures: Mapping[str, NDArray],
    prompts: Mapping[str, NDArray],
    pixels: Mapping[str, NDArray],
) -> dict[str, NDArray]:
    found = {
        names.FEATURES: inception.get("features"),
        names.LOGITS: inception.get("logits"),
        names.COLOUR_LOGITS: inception.get("colour_logits"),
        names.CLIP_IMAGE: pictures.get("image"),
        names.CLIP_TEXT: prompts.get("text"),
        **{f"pixels.{name}": array for name, array in pixels.items()},
    }
    return {name: array for name, array in found.items() if array is not None}


def _long_texts(texts: Sequence[str], arrays: Mapping[str, NDArray]) -> tuple[str, ...]:
    if not arrays:
        return ()
    cut = arrays["n_tokens"] > arrays["context_length"]
    return tuple(dict.fromkeys(text for text, is_cut in zip(texts, cut, strict=True) if is_cut))
