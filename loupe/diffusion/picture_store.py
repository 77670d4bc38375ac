"""Pictures in the work store: found again by their key, and kept as they are drawn.

A picture's key is the fingerprint of all that decides its bytes (sample_plan.py). It draws nothing.
"""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from loupe.atomic_io import sha256_file, write_bytes, write_record
from loupe.diffusion.sample_plan import PlannedSample
from loupe.diffusion.sampling import Picture
from loupe.workstore import WorkStore, copy_file

STORE_KIND = "samples"
_MAX_UNWRITTEN = 32


class PictureOutcome(BaseModel):
    """What the work store keeps beside a picture; written after it, so it vouches for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str | None
    """Of the PNG's bytes; None when there is no picture."""
    invalid_reason: str | None


def stored_outcome(store: WorkStore, item: PlannedSample) -> PictureOutcome | None:
    """Return what the work store says of a picture; None when it has none."""
    entry = store.get(STORE_KIND, item.key, ".json")
    if entry is None:
        return None
    try:
        return PictureOutcome.model_validate_json(entry.read_bytes())
    except ValidationError:
        return None


def reuse(store: WorkStore, item: PlannedSample, output: Path) -> PictureOutcome | None:
    """Copy a picture from the work store to `output`; None when it is not there whole."""
    outcome = stored_outcome(store, item)
    if outcome is None or outcome.sha256 is None:
        return outcome
    picture = store.get(STORE_KIND, item.key, ".png")
    if picture is None or sha256_file(picture) != outcome.sha256:
        return None
    copy_file(picture, output / item.file)
    return outcome


def keep(
    drawn: Iterable[tuple[PlannedSample, Picture]], store: WorkStore, output: Path
) -> Iterator[tuple[PlannedSample, PictureOutcome]]:
    """Write pictures in a second thread while the next ones are denoised; a failed write stops the drawing soon."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="write-picture") as writer:
        waiting: deque[tuple[PlannedSample, Future[PictureOutcome]]] = deque()
        for item, picture in drawn:
            waiting.append((item, writer.submit(_write_picture, item, picture, store, output)))
            while waiting and (len(waiting) > _MAX_UNWRITTEN or waiting[0][1].done()):
                done, outcome = waiting.popleft()
                yield done, outcome.result()
        for done, outcome in waiting:
            yield done, outcome.result()


def _write_picture(item: PlannedSample, picture: Picture, store: WorkStore, output: Path) -> PictureOutcome:
    outcome = PictureOutcome(sha256=None, invalid_reason=picture.invalid_reason)
    if picture.pixels is not None:
        content = _png(picture.pixels)
        outcome = outcome.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
        write_bytes(store.path(STORE_KIND, item.key, ".png"), content)
        write_bytes(output / item.file, content)
    write_record(store.path(STORE_KIND, item.key, ".json"), outcome)
    return outcome


def _png(pixels_HWC: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "PNG")
    return buffer.getvalue()
