"""How often the test split was looked at: what was chosen by val is confirmed on it, and every further choice wears it.

The record is a file below .work, because a result must not depend on what was tried before it. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from loupe.atomic_io import read_records, write_records
from loupe.errors import PipelineError
from loupe.evaluation_records import ExtractorInfo, TestLook
from loupe.records import SamplesManifest
from loupe.workstore import fingerprint


def looks_file(work: Path) -> Path:
    """Return where the looks are written down, below the work store's folder."""
    return work / "test-looks.jsonl"


def looks_at(test_sha256: str, looks: Iterable[TestLook]) -> tuple[TestLook, ...]:
    """Return those of the looks that were taken at this test split, oldest first."""
    return tuple(look for look in looks if look.test_sha256 == test_sha256)


def remember_look(
    work: Path, seen: SamplesManifest, extractors: Iterable[ExtractorInfo], *, test_sha256: str, step: int
) -> tuple[TestLook, ...]:
    """Write down that `seen` was measured on this test split, unless it was before; return the looks at it.

    A choice is the pictures of both sides, by their bytes, and what measured them: the same pictures of a run that was
    computed anew are no further look.
    """
    pictures = sorted(
        (sample.step, sample.prompt_id, sample.seed_index, sample.sha256 or "") for sample in seen.samples
    )
    choice = fingerprint({"pictures": pictures, "extractors": [info.sha256 for info in extractors]})
    every = read_looks(looks_file(work))
    known = looks_at(test_sha256, every)
    if choice in (look.choice for look in known):
        return known
    now = datetime.now(UTC).isoformat(timespec="seconds")
    look = TestLook(at=now, test_sha256=test_sha256, choice=choice, step=step)
    write_records(looks_file(work), [*every, look])
    return (*known, look)


def look_note(looks: Iterable[TestLook]) -> str:
    """Return in one sentence what a reader of the final result should know of them."""
    steps = [look.step for look in looks]
    if not steps:
        return "Measured after the choice was made; how often this test split was looked at is not known here."
    if len(steps) == 1:
        return "Looked at once, after the choice was made."
    return (
        f"This test split has been looked at {len(steps)} times, each time with another checkpoint or other pictures "
        f"(of steps {', '.join(map(str, steps))}): it no longer confirms a choice that was made without it."
    )


def read_looks(file: Path) -> tuple[TestLook, ...]:
    """Return all looks of a looks_file, at whatever test split; () where there is none. PipelineError when damaged."""
    if not file.is_file():
        return ()
    try:
        return tuple(read_records(file, TestLook, made_by="confirm"))
    except PipelineError:
        mend = "Remove it; the count of looks at the test split then begins anew."
        raise PipelineError(f"{file} is damaged. {mend}") from None
