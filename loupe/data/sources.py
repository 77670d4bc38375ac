"""Where examples come from: one branch per value of data.source, all returning the same listing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from loupe.data.captions import parse_template
from loupe.data.catalogue_source import read_catalogue
from loupe.data.demo_source import rendered_catalogue
from loupe.data.file_sources import read_captions_json, read_pairs
from loupe.data.items import SourceListing
from loupe.workstore import WorkStore


def read_source(
    source: Literal["demo", "kaggle-fashion", "pairs", "captions-json"],
    root: Path,
    *,
    article_type: str,
    malformed_rows: Literal["repair", "skip"],
    caption_template: str,
    demo_items: int,
    resolution: int,
    seed: int,
    store: WorkStore,
) -> SourceListing:
    """List what a source holds; `root` is not read for `demo`, which is rendered into `store` at `resolution` px.

    Raises PipelineError for everything a user can get wrong about a source.
    """
    match source:
        case "pairs":
            return read_pairs(root)
        case "captions-json":
            return read_captions_json(root)
        case "demo" | "kaggle-fashion":
            template = parse_template(caption_template)
            if source == "demo":
                root = rendered_catalogue(store, n_items=demo_items, seed=seed, size_px=resolution)
            return read_catalogue(root, article_type=article_type, malformed_rows=malformed_rows, template=template)
