"""Image files as the extractors get them: checked against their recorded hash, then decoded to uint8 RGB pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loupe.errors import PipelineError, problems_message

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]
"""[H, W, 3], 0..255."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One picture on disk and the SHA-256 that its manifest gives it."""

    path: Path
    sha256: str

    def pixels(self) -> Pixels:
        """Decode the file, which must have been checked; PipelineError when it is no RGB picture."""
        return read_pixels(self)


@dataclass(frozen=True, slots=True)
class MadeImage:
    """A picture that is in no file: a control, drawn when it is asked for."""

    sha256: str
    """Of its pixels' bytes."""
    draw: Callable[[], Pixels]

    def pixels(self) -> Pixels:
        """Draw it anew; the same bytes every time."""
        return self.draw()


class UnreadableImageError(PipelineError):
    """A file is no picture that extractors can look at; `reason` says so without naming it."""

    def __init__(self, file: ImageFile, reason: str, detail: str = "") -> None:
        super().__init__(f"{file.path} {reason}{f': {detail}' if detail else ''}. Make it anew.")
        self.reason = reason


def why_not_as_recorded(file: ImageFile) -> str | None:
    """Return why the file is not, byte for byte, the one of its recorded hash: missing or changed; None where it is."""
    try:
        with file.path.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        return str(error.strerror)
    if found != file.sha256:
        return f"changed since it was made (sha256 {found[:12]}, recorded {file.sha256[:12]})"
    return None


def check_image_files(files: Sequence[ImageFile], *, where: str, made_by: str) -> None:
    """Compare every file with its recorded hash; all that are missing or changed are named in one PipelineError."""
    problems = [f"{file.path}: {why}" for file in files if (why := why_not_as_recorded(file))]
    if problems:
        advice = f"The manifest does not match its files. Make them anew: dvc repro --force {made_by}"
        raise PipelineError(f"{problems_message(where, problems)}\n{advice}")


def read_pixels(file: ImageFile) -> Pixels:
    """Decode one checked file; UnreadableImageError, which names it, when it is no RGB picture."""
    with _opened(file) as image:
        if image.mode != "RGB":
            raise UnreadableImageError(file, f"is {image.mode}; extractors take RGB")
        return np.asarray(image)


def check_sizes(files: Sequence[ImageFile], size_px: tuple[int, int], *, where: str, made_by: str) -> None:
    """Look at the header of every checked file; all that are not `size_px` (width, height) are in one PipelineError."""
    problems = []
    for file in files:
        try:
            with _opened(file) as image:
                found_px = image.size
        except UnreadableImageError as error:
            problems.append(f"{file.path}: {error.reason}")
            continue
        if found_px != size_px:
            problems.append(f"{file.path}: {found_px[0]} x {found_px[1]} px, not {size_px[0]} x {size_px[1]}")
    if problems:
        raise PipelineError(f"{problems_message(where, problems)}\nMake them anew: dvc repro --force {made_by}")


@contextmanager
def _opened(file: ImageFile) -> Iterator[Image.Image]:
    """Open a picture; what goes wrong inside the block is the file's fault, and said as UnreadableImageError."""
    from PIL import Image

    try:
        with Image.open(file.path) as image:
            yield image
    except (PipelineError, MemoryError):  # the second says nothing about the file
        raise
    except Exception as error:  # Pillow lets through whatever broken content makes its parsers raise
        raise UnreadableImageError(file, "cannot be decoded as a picture", str(error)) from None


def stacked(images: Sequence[Pixels]) -> NDArray[np.uint8]:
    """Return equally large images as one [B, 3, H, W] array; ValueError when their sizes differ."""
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
