"""Measured images, row by row: what every metric is a pure function of. It reads no file and computes no score.

Metrics look at the arrays of one extractor per role. Where a run has several, the arrays of the others carry another
prefix than the role, and `seen_by` shows an image set as such an extractor sees it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loupe.errors import PipelineError

Array = NDArray[np.float64]

FEATURES = "inception.features"
"""[N, D] float32, of the extractor whose role is inception."""
LOGITS = "inception.logits"
"""[N, K] float32, unnormalised log-probabilities of its classes."""
RATING = "aesthetic.rating"
"""[N] float64 in [0, 1], the probability of `aesthetic`."""
COLOUR_LOGITS = "inception.colour_logits"
"""[N, C] float32; only the demo classifier has it."""
ASKED_COLOUR = "inception.asked_colour"
"""[N] int64, the class that the prompt asks for; -1 where it names no colour that the classifier knows."""
CLIP_IMAGE = "clip.image"
"""[N, D] float32, any norm."""
CLIP_TEXT = "clip.text"
"""[N, D] float32, of the prompt of each row."""
BACKGROUND_WHITE_SHARE = "pixels.background_white_share"
"""[N] float64 in [0, 1], of the border ring."""
FOREGROUND_SHARE = "pixels.foreground_share"
"""[N] float64 in [0, 1], of the picture that the product takes; 0 where none is seen."""
CENTRE_OFFSET = "pixels.centre_offset"
"""[N] float64, of the product's bounding box, as a share of the picture's longer side."""
TOUCHES_BORDER = "pixels.touches_border"
"""[N] float64, 1 where the product reaches an edge."""
N_OBJECTS = "pixels.n_objects"
"""[N] float64, connected things of more than 1 % of the picture."""
SHARPNESS = "pixels.sharpness"
"""[N] float64, variance of the Laplacian inside the product, in grey levels squared."""
COLOUR_SHARES = "pixels.colour_shares"
"""[N, F] float64, shares of the product's pixels in each of colour_families.FAMILIES."""
ASKED_FAMILY = "pixels.asked_family"
"""[N] int64, the family that the prompt or caption asks for; -1 for none."""


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images of one checkpoint (or of one real split) with what the extractors said about each.

    `cells` names the rows: (prompt id, seed index), or (image id, 0) for real photos. The rows of every array in
    `arrays` are in that order; the names are the constants of this module.
    """

    cells: tuple[tuple[str, int], ...]
    arrays: Mapping[str, NDArray]

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            if len(array) != len(self.cells):
                raise ValueError(f"{name} has {len(array)} rows for {len(self.cells)} images")

    def __len__(self) -> int:
        return len(self.cells)

    def array(self, name: str) -> NDArray:
        """Return an array by its name; KeyError when the extractors did not yield it.

        Raises TooFewImagesError for a set without images, of which no extractor said anything.
        """
        if not self.cells and name not in self.arrays:
            raise TooFewImagesError("it needs at least 1 image; there are 0")
        return self.arrays[name]

    def rows(self, indices: Sequence[int] | NDArray) -> ImageSet:
        """Return the images at these row numbers, in that order."""
        picked = np.asarray(indices, dtype=np.int64)
        arrays = {name: array[picked] for name, array in self.arrays.items()}
        return ImageSet(cells=tuple(self.cells[i] for i in picked), arrays=arrays)

    def contents(self) -> dict[tuple[str, int], bytes]:
        """Return cell -> a hash of all that the extractors said of its image: equal for the same picture and prompt."""
        hashes = [hashlib.sha256() for _ in self.cells]
        for name in sorted(self.arrays):
            for row, values in enumerate(np.ascontiguousarray(self.arrays[name])):
                hashes[row].update(values.tobytes())
        return {cell: found.digest() for cell, found in zip(self.cells, hashes, strict=True)}

    def seen_by(self, arrays: str, role: str) -> ImageSet:
        """Return the images with the arrays whose prefix is `arrays` under the names of `role`."""
        if arrays == role:
            return self
        kept = {name: array for name, array in self.arrays.items() if not name.startswith(f"{role}.")}
        prefix = f"{arrays}."
        shown = {f"{role}.{n.removeprefix(prefix)}": a for n, a in self.arrays.items() if n.startswith(prefix)}
        return ImageSet(cells=self.cells, arrays={**kept, **shown})

    def prompt_index(self) -> NDArray[np.int64]:
        """Return [N]: a number from 0 on per distinct prompt, in the order in which they first occur."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(prompt, len(numbers)) for prompt, _ in self.cells], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class RealPhotos:
    """The real side of every comparison; each photo is a prompt of its own."""

    train: ImageSet
    """What the adapter was trained on: bands of pixel measures, and what could be memorised."""
    held_out: ImageSet
    """What distances are taken from: the val photos, in `confirm` the test photos."""

    def seen_by(self, arrays: str, role: str) -> RealPhotos:
        """Return both sets as `ImageSet.seen_by` shows them."""
        return RealPhotos(train=self.train.seen_by(arrays, role), held_out=self.held_out.seen_by(arrays, role))


class TooFewImagesError(PipelineError):
    """A score needs more images than there are; the score is left out and the reason kept."""


class NoDirectionError(TooFewImagesError):
    """A feature of nothing but zeros has no cosine with another; the score is left out and the reason kept."""


def require_directions(images: ImageSet, name: str) -> None:
    """Raise NoDirectionError, which names the images, where rows of the array `name` are all zero."""
    zero = ~images.array(name).any(axis=1)
    if zero.any():
        found = [f"{prompt} ({index})" for (prompt, index), is_zero in zip(images.cells, zero, strict=True) if is_zero]
        raise NoDirectionError(
            f"the network gives only zeros, which have no direction, for the {name.partition('.')[2]} of "
            f"{', '.join(found)}; its weights may be damaged"
        )


def require_images(images: ImageSet, least: int, what: str) -> None:
    """Raise TooFewImagesError when `images` holds fewer than `least`."""
    if len(images) < least:
        raise TooFewImagesError(f"{what} needs at least {least} images; there are {len(images)}")


def asked_colour_classes(colours: Sequence[str | None], class_names: Sequence[str]) -> NDArray[np.int64]:
    """Return for each colour its index in `class_names`, ignoring case, or -1."""
    index = {name.casefold(): i for i, name in enumerate(class_names)}
    return np.array([index.get(colour.casefold(), -1) if colour else -1 for colour in colours], dtype=np.int64)
