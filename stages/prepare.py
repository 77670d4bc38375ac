"""Turn a source of photos and captions into train, val and test examples, and audit them.

Reads the folder data.root (or renders the demo catalogue); writes data/dataset with manifest.json last, and
metrics/dataset.json.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.atomic_io import empty_folder, write_json, write_record
from loupe.params import Params
from loupe.paths import ProjectPaths
from loupe.progress import track
from loupe.records import DatasetManifest, Rejection
from loupe.stage import report_counts, run_stage
from loupe.workstore import WorkStore

if TYPE_CHECKING:
    from loupe.data.items import SourceListing
    from loupe.data.photo_store import PreparedPhoto


def prepare(params: Params, paths: ProjectPaths, store: WorkStore) -> None:
    """Run the whole stage."""
    from loupe.data import audit, dataset
    from loupe.data.report import write_report

    data = params.data
    shares = {"train": data.split.train, "val": data.split.val, "test": data.split.test}
    empty_folder(paths.dataset)
    listing = _read(params, project_root=paths.root, store=store)
    plan = dataset.plan_split(
        listing.items,
        shares=shares,
        stratify_by=data.split.stratify_by,
        rare_below=data.split.rare_below,
        group_families=data.split.group_families,
        seed=params.seed,
    )
    chosen = dataset.choose_examples(
        listing, split_of=plan.split_of, n_examples=data.max_examples, shares=shares, seed=params.seed
    )
    missing = tuple(sorted(item.image_id for item in listing.items if item.photo is None))
    prepared, unusable = _prepare_photos(chosen, resolution=data.resolution, store=store)
    photos, duplicates = audit.without_duplicates(prepared)
    rejected = sorted([*unusable, *duplicates], key=lambda rejection: rejection.image_id)
    dataset.refuse_too_many_rejected(rejected, n_photos=len(chosen), max_share=data.max_rejected_share)
    dataset.refuse_small_splits(photos, split_of=plan.split_of, n_missing=len(missing))
    records = dataset.write_examples(photos, split_of=plan.split_of, folder=paths.dataset)
    oddities = audit.find_oddities(
        photos,
        split_of=plan.split_of,
        resolution=data.resolution,
        near_duplicate_bits=data.near_duplicate_bits,
    )
    manifest = DatasetManifest(
        source=data.source,
        resolution_px=data.resolution,
        seed=params.seed,
        n_rows=listing.n_rows,
        n_selected=len(listing.items),
        n_missing=len(missing),
        missing_ids=missing,
        n_examples={split: sum(record.split == split for record in records) for split in shares},
        malformed_rows=listing.malformed_rows,
        rejected=tuple(rejected),
        findings=(*plan.findings, *oddities),
        attribute_counts=dataset.attribute_counts(records),
        captions_sha256=dataset.captions_sha256(paths.dataset),
    )
    write_report(paths.dataset, manifest, records, max_rejected_share=data.max_rejected_share)
    write_json(paths.metrics / "dataset.json", dataset.summary(manifest))
    write_record(paths.dataset / "manifest.json", manifest)
    print(dataset.closing_line(manifest))
    reused = sum(photo.reused for photo in prepared)
    report_counts("prepare", computed=len(chosen) - reused, reused=reused)


def _read(params: Params, *, project_root: Path, store: WorkStore) -> SourceListing:
    from loupe.data.sources import read_source

    data = params.data
    return read_source(
        data.source,
        project_root / Path(data.root).expanduser(),
        article_type=data.article_type,
        malformed_rows=data.malformed_rows,
        caption_template=data.caption_template,
        demo_items=data.demo_items,
        resolution=data.resolution,
        seed=params.seed,
        store=store,
    )


def _prepare_photos(chosen: list, *, resolution: int, store: WorkStore) -> tuple[list[PreparedPhoto], list[Rejection]]:
    from loupe.data.photo_store import PhotoPreparer, prepare_photos

    preparer = PhotoPreparer(resolution=resolution, store=store)
    results = prepare_photos(chosen, preparer, workers=os.cpu_count() or 1)
    done = list(track(results, total=len(chosen), what="prepare"))
    rejected = [result for result in done if isinstance(result, Rejection)]
    return [result for result in done if not isinstance(result, Rejection)], rejected


if __name__ == "__main__":
    run_stage("prepare", __doc__, prepare)
