"""The generated pictures of a run as cells of the grid prompt x seed x step, each with what is wrong with it.

A finished folder is read by its manifest alone. While `generate` is at work there is none yet: then the pictures that
are already there are shown, and the others wait. It never writes, and no file name comes from a caller.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

from loupe.records import PromptRecord, SampleRecord, SamplesManifest
from loupe.run_files import RunFiles, listing, stays_inside

Status = Literal["whole", "invalid", "waiting", "missing", "corrupt"]
SampleKey = tuple[str, int, int]
"""(prompt id, seed index, step)"""
Wanted = Callable[[SampleKey], bool]
_AT_ONCE = 256
"""So many pictures are compared with their hashes together; a caller who stops early waits for no more."""
_FOLDER = re.compile(r"(?P<prompt>.+)-(?P<seed_index>\d+)")
_PNG_BEGIN, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_PICTURE = re.compile(r"(?P<step>\d+)\.png")


@dataclass(frozen=True, slots=True)
class SampleView:
    """One cell of the grid, whether or not there is a picture in it."""

    prompt_id: str
    seed_index: int
    step: int
    seed: int | None
    sha256: str | None
    """Of the picture to show; None when there is none, or none to be believed."""
    status: Status
    reason: str
    """Empty for a whole picture; otherwise why there is none, or what is wrong with it."""

    @property
    def key(self) -> SampleKey:
        """Return the cell's place in the grid."""
        return self.prompt_id, self.seed_index, self.step


def only(
    prompt_ids: Collection[str] | None, seed_indices: Collection[int] | None, steps: Collection[int] | None
) -> Wanted:
    """Return a filter of cells; a part that is None lets all pass."""
    parts = (prompt_ids, seed_indices, steps)
    return lambda key: all(allowed is None or part in allowed for part, allowed in zip(key, parts, strict=True))


def recorded_samples(
    files: RunFiles, folder: Path, samples: Iterable[SampleRecord], wanted: Wanted
) -> Iterator[SampleView]:
    """Yield the cells of a manifest's samples in their order; each picture's bytes are compared with its hash."""
    passing = (sample for sample in samples if wanted((sample.prompt_id, sample.seed_index, sample.step)))
    while together := list(islice(passing, _AT_ONCE)):
        files.hash_ahead(folder / s.file for s in together if s.file and stays_inside(s.file))
        for sample in together:
            status, reason = _verify(files, folder, sample)
            sha256 = sample.sha256 if status in ("whole", "invalid") else None
            key = (sample.prompt_id, sample.seed_index, sample.step)
            yield SampleView(*key, seed=sample.seed, sha256=sha256, status=status, reason=reason)


def samples_by_prompt(manifest: SamplesManifest) -> dict[str, list[SampleRecord]]:
    """Return a manifest's samples by prompt id, in its order: a page asks for a few of many prompts."""
    found: dict[str, list[SampleRecord]] = {}
    for sample in manifest.samples:
        found.setdefault(sample.prompt_id, []).append(sample)
    return found


def appearing_samples(
    files: RunFiles,
    pictures: dict[SampleKey, Path],
    *,
    prompts: Collection[PromptRecord],
    n_seeds: int,
    steps: Collection[int],
    wanted: Wanted,
) -> Iterator[SampleView]:
    """Yield the cells that are expected or there, in the order prompt, seed index, step; the rest wait."""
    seeds = sorted({*range(n_seeds), *(seed for _, seed, _ in pictures)})
    all_steps = sorted({*steps, *(step for _, _, step in pictures)})
    keys = ((prompt.prompt_id, seed_index, step) for prompt in prompts for seed_index in seeds for step in all_steps)
    for key in filter(wanted, keys):
        sha256 = files.sha256(pictures[key]) if key in pictures else None
        if sha256 is None:
            yield SampleView(*key, seed=None, sha256=None, status="waiting", reason="not drawn yet")
        elif not files.parsed(pictures[key], "is whole", partial(_is_whole_png, pictures[key])):
            reason = f"{files.relative(pictures[key])} is no whole PNG. Make it anew: dvc repro --force generate"
            yield SampleView(*key, seed=None, sha256=None, status="corrupt", reason=reason)
        else:
            yield SampleView(*key, seed=None, sha256=sha256, status="whole", reason="")


def pictures_in(files: RunFiles, folder: Path) -> dict[SampleKey, Path]:
    """Return what lies in a samples folder as `<prompt>-<seed index>/<step>.png`; temporary files do not count."""
    found: dict[SampleKey, Path] = {}
    for subfolder in listing(folder):
        found |= files.parsed(subfolder, "pictures", partial(_pictures_of_row, subfolder)) or {}
    return found


def _pictures_of_row(subfolder: Path) -> dict[SampleKey, Path]:
    name = _FOLDER.fullmatch(subfolder.name)
    if name is None or not subfolder.is_dir():
        return {}
    pictures = {picture: file for file in listing(subfolder) if (picture := _PICTURE.fullmatch(file.name))}
    return {(name["prompt"], int(name["seed_index"]), int(p["step"])): file for p, file in pictures.items()}


def _is_whole_png(path: Path) -> bool:
    """Return whether a file begins and ends as a PNG does; there is no manifest yet that could tell."""
    with path.open("rb") as file:
        begin = file.read(len(_PNG_BEGIN))
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(_PNG_END)))
        return begin == _PNG_BEGIN and file.read() == _PNG_END


def files_by_sha256(folder: Path, manifest: SamplesManifest | None) -> dict[str, Path]:
    """Return the file of every picture that a manifest names, by its hash; a name that leaves the folder is dropped."""
    samples = manifest.samples if manifest else ()
    return {s.sha256: folder / s.file for s in samples if s.sha256 and s.file and stays_inside(s.file)}


def _verify(files: RunFiles, folder: Path, sample: SampleRecord) -> tuple[Status, str]:
    if sample.file is None or sample.sha256 is None:
        return "missing", f"no picture: {sample.invalid_reason or 'none was kept'}"
    if not stays_inside(sample.file):
        return "corrupt", "the manifest names a file outside its folder"
    found = files.sha256(folder / sample.file)
    if found is None:
        return "missing", f"{sample.file} is not there. Bring it back: {_mend(files, folder)}"
    if found != sample.sha256:
        return "corrupt", f"{sample.file} is not what was generated. Bring it back: {_mend(files, folder)}"
    return ("invalid", sample.invalid_reason) if sample.invalid_reason else ("whole", "")


def _mend(files: RunFiles, folder: Path) -> str:
    return f"dvc checkout --force {files.relative(folder)}"
