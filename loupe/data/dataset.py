"""From a listing to the dataset on disk: who is an example, in which split, and what was left out.

It reads no parameters and draws no figure; the stage puts the pieces together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loupe.atomic_io import sha256_file, write_records
from loupe.data.audit import NEAR_DUPLICATE, NEAR_DUPLICATE_ACROSS
from loupe.data.items import SourceItem, SourceListing, shortened
from loupe.data.photo_store import PreparedPhoto
from loupe.data.split import draw_examples, group_rare, split_families, split_rows
from loupe.errors import PipelineError, problems_message
from loupe.paths import SPLITS
from loupe.records import CaptionRecord, DatasetManifest, Finding, Rejection, Split
from loupe.workstore import copy_file

MIN_EXAMPLES: dict[Split, int] = {"train": 1, "val": 2, "test": 2}
"""Two held-out images at least: a distance between distributions needs a variance."""


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """Which split every selected row belongs to, its photo there or not."""

    split_of: dict[str, Split]
    findings: tuple[Finding, ...]


def plan_split(
    items: Sequence[SourceItem],
    *,
    shares: Mapping[Split, float],
    stratify_by: str,
    rare_below: int,
    group_families: bool,
    seed: int,
) -> SplitPlan:
    """Assign every item, by its attributes alone; `stratify_by` is an attribute's name or 'none'.

    A source without that attribute is split without strata, and a finding says so. A row without a family is a family
    of its own.
    """
    values = [item.attributes.get(stratify_by, "") for item in items]
    findings: tuple[Finding, ...] = ()
    if stratify_by != "none" and not any(values):
        detail = f"this source knows no {stratify_by}; the split is drawn without strata"
        findings = (Finding(kind="not stratified", image_ids=(), detail=detail),)
    strata = group_rare(values, rare_below=rare_below)
    if group_families:
        families = [item.attributes.get("family") or f"id {item.image_id}" for item in items]
        splits = split_families(strata, families, shares=shares, seed=seed)
    else:
        splits = split_rows(strata, shares=shares, seed=seed)
    split_of = {item.image_id: split for item, split in zip(items, splits, strict=True)}
    return SplitPlan(split_of=split_of, findings=findings)


def choose_examples(
    listing: SourceListing,
    *,
    split_of: Mapping[str, Split],
    n_examples: int | None,
    shares: Mapping[Split, float],
    seed: int,
) -> list[SourceItem]:
    """Return the items whose photo is there, ordered by id; at most `n_examples`, drawn by seed from each split."""
    present = sorted((item for item in listing.items if item.photo is not None), key=lambda item: item.image_id)
    if n_examples is None or n_examples >= len(present):
        return present
    ids = {split: [item.image_id for item in present if split_of[item.image_id] == split] for split in SPLITS}
    drawn = draw_examples(ids, n_examples=n_examples, shares=shares, seed=seed)
    return [item for item in present if item.image_id in drawn]


def refuse_too_many_rejected(rejected: Sequence[Rejection], *, n_photos: int, max_share: float) -> None:
    """Raise PipelineError, naming the photos, when more than `max_share` of those opened cannot be used."""
    if len(rejected) <= max_share * n_photos:
        return
    problems = shortened([f"{each.image_id}: {each.reason}: {each.detail}" for each in rejected])
    raise PipelineError(
        problems_message("photos that cannot be used", problems)
        + f"\n{len(rejected)} of {n_photos} photos ({len(rejected) / n_photos:.1%}) is more than "
        f"data.max_rejected_share ({max_share:.1%}). Mend or remove them, or raise that share."
    )


def refuse_small_splits(photos: Sequence[PreparedPhoto], *, split_of: Mapping[str, Split], n_missing: int) -> None:
    """Raise PipelineError when a split has too few images to train on or to measure with."""
    counts = Counter(split_of[photo.item.image_id] for photo in photos)
    small = [
        f"{split}: {counts[split]} images, at least {least} needed"
        for split, least in MIN_EXAMPLES.items()
        if counts[split] < least
    ]
    if small:
        missing = f" The photos of {n_missing} selected rows are missing." if n_missing else ""
        raise PipelineError(
            problems_message("a split has too few images", small)
            + f"\nAdd photos, raise data.max_examples, or change the shares in data.split.{missing}"
        )


def write_examples(
    photos: Sequence[PreparedPhoto], *, split_of: Mapping[str, Split], folder: Path
) -> list[CaptionRecord]:
    """Copy the pictures to <split>/images/<id>.png and write every captions.jsonl; return all records by id."""
    records = []
    for photo in sorted(photos, key=lambda photo: photo.item.image_id):
        split = split_of[photo.item.image_id]
        file = f"{split}/images/{photo.item.image_id}.png"
        copy_file(photo.stored, folder / file)
        records.append(
            CaptionRecord(
                image_id=photo.item.image_id,
                split=split,
                file=file,
                caption=photo.item.caption,
                sha256=photo.facts.sha256,
                source_width_px=photo.facts.source_width_px,
                source_height_px=photo.facts.source_height_px,
                attributes=photo.item.attributes,
            )
        )
    for split in SPLITS:
        write_records(folder / split / "captions.jsonl", [record for record in records if record.split == split])
    return records


def captions_sha256(folder: Path) -> dict[Split, str]:
    """Return the SHA-256 of each split's captions.jsonl, which together identify the dataset."""
    return {split: sha256_file(folder / split / "captions.jsonl") for split in SPLITS}


def attribute_counts(records: Sequence[CaptionRecord]) -> dict[str, dict[str, int]]:
    """Count the examples of every attribute value; families are left out, since nearly each is its own."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        for name, value in record.attributes.items():
            if name != "family":
                counts.setdefault(name, Counter())[value] += 1
    return {name: dict(counter) for name, counter in counts.items()}


def summary(manifest: DatasetManifest) -> dict[str, int]:
    """Return the manifest's counts, flat, for metrics/dataset.json."""
    kinds = Counter(finding.kind for finding in manifest.findings)
    return {
        **{f"n_{split}": manifest.n_examples[split] for split in SPLITS},
        "n_rows": manifest.n_rows,
        "n_selected": manifest.n_selected,
        "n_missing": manifest.n_missing,
        "n_malformed": len(manifest.malformed_rows),
        "n_rejected": len(manifest.rejected),
        "n_near_duplicates": kinds[NEAR_DUPLICATE] + kinds[NEAR_DUPLICATE_ACROSS],
        "n_near_duplicates_across_splits": kinds[NEAR_DUPLICATE_ACROSS],
        "n_enlarged": kinds["enlarged"],
        "n_long_captions": kinds["long caption"],
    }


def closing_line(manifest: DatasetManifest) -> str:
    """Return one sentence for the terminal: what there is, what is missing, where to read more."""
    counts = ", ".join(f"{manifest.n_examples[split]} {split}" for split in SPLITS)
    return (
        f"prepare: {counts}; {manifest.n_missing} photos missing, {len(manifest.rejected)} not usable, "
        f"{len(manifest.malformed_rows)} malformed rows, {len(manifest.findings)} findings: data/dataset/report.html"
    )
