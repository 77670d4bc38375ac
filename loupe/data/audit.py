"""What a person should know before training: duplicates, near-duplicates, enlarged photos, over-long captions.

Only exact duplicates are taken out; everything else is reported and stays. It changes no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from loupe.data.perceptual_hash import MIN_OUTLINE_AGREEMENT, near_pairs, outline
from loupe.data.photo_store import PreparedPhoto
from loupe.data.token_count import CONTEXT_LENGTH, count_tokens
from loupe.records import Finding, Rejection, Split

MAX_ENLARGEMENT = 2.0
NEAR_DUPLICATE = "near-duplicate"
NEAR_DUPLICATE_ACROSS = "near-duplicate across splits"


def without_duplicates(photos: Sequence[PreparedPhoto]) -> tuple[list[PreparedPhoto], list[Rejection]]:
    """Keep the first id (in sorted order) of photos whose prepared pictures are the same pixel for pixel.

    PNG is written without metadata, so equal bytes are equal pixels.
    """
    kept: dict[str, PreparedPhoto] = {}
    rejected = []
    for photo in sorted(photos, key=lambda photo: photo.item.image_id):
        first = kept.setdefault(photo.facts.sha256, photo)
        if first is not photo:
            detail = f"same picture as {first.item.image_id}, which is kept"
            rejected.append(Rejection(image_id=photo.item.image_id, reason="duplicate", detail=detail))
    return list(kept.values()), rejected


def find_oddities(
    photos: Sequence[PreparedPhoto], *, split_of: Mapping[str, Split], resolution: int, near_duplicate_bits: int
) -> list[Finding]:
    """Return everything worth a look, near-duplicates across splits first."""
    checks: tuple[Callable[[PreparedPhoto], Finding | None], ...] = (
        lambda photo: _enlarged(photo, resolution),
        _long_caption,
        _blank,
        _noted,
    )
    single = [finding for check in checks for finding in map(check, photos) if finding is not None]
    return [*near_duplicates(photos, split_of=split_of, max_bits=near_duplicate_bits), *single]


def near_duplicates(photos: Sequence[PreparedPhoto], *, split_of: Mapping[str, Split], max_bits: int) -> list[Finding]:
    """Return one finding per pair whose hashes differ in at most `max_bits` of 64 and whose outlines agree."""
    findings = []
    outlines: dict[int, np.ndarray] = {}
    for one, other, bits in near_pairs([photo.facts.perceptual_hash for photo in photos], max_bits=max_bits):
        for place in (one, other):
            if place not in outlines:
                outlines[place] = _stored_outline(photos[place])
        agreement = float(outlines[one] @ outlines[other])
        if agreement < MIN_OUTLINE_AGREEMENT:
            continue
        ids = (photos[one].item.image_id, photos[other].item.image_id)
        splits = tuple(split_of[name] for name in ids)
        across = splits[0] != splits[1]
        where = f"{splits[0]} and {splits[1]}" if across else f"both in {splits[0]}"
        kind = NEAR_DUPLICATE_ACROSS if across else NEAR_DUPLICATE
        detail = f"{where}; hashes differ in {bits} of 64 bits, outlines agree to {agreement:.2f}"
        findings.append(Finding(kind=kind, image_ids=ids, detail=detail))
    return sorted(findings, key=lambda finding: (finding.kind != NEAR_DUPLICATE_ACROSS, finding.image_ids))


def _stored_outline(photo: PreparedPhoto) -> np.ndarray:
    with Image.open(photo.stored) as picture:
        return outline(picture)


def _enlarged(photo: PreparedPhoto, resolution: int) -> Finding | None:
    width, height = photo.facts.source_width_px, photo.facts.source_height_px
    factor = resolution / max(width, height)
    if factor <= MAX_ENLARGEMENT:
        return None
    return _finding("enlarged", photo, f"{width}x{height} px, enlarged {factor:.1f} times to {resolution} px")


def _long_caption(photo: PreparedPhoto) -> Finding | None:
    n_tokens = count_tokens(photo.item.caption)
    if n_tokens <= CONTEXT_LENGTH:
        return None
    return _finding("long caption", photo, f"{n_tokens} tokens; only the first {CONTEXT_LENGTH} are read")


def _blank(photo: PreparedPhoto) -> Finding | None:
    if photo.facts.perceptual_hash is not None:
        return None
    return _finding("blank", photo, "nothing in it is darker than white")


def _noted(photo: PreparedPhoto) -> Finding | None:
    if not photo.facts.notes:
        return None
    return _finding("colour profile", photo, "; ".join(photo.facts.notes))


def _finding(kind: str, photo: PreparedPhoto, detail: str) -> Finding:
    return Finding(kind=kind, image_ids=(photo.item.image_id,), detail=detail)
