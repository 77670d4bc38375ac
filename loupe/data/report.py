"""The audit as one readable page with its figures beside it. It shows what the manifest holds and decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from loupe.atomic_io import atomic_path, write_text
from loupe.data.figures import grouped_bars, histogram
from loupe.data.split import draw_rank
from loupe.paths import SPLITS
from loupe.records import CaptionRecord, DatasetManifest, Finding

SHOWN_ATTRIBUTES = ("colour", "gender", "season", "usage", "year")
_MAX_BARS = 16
_MAX_PAIRS = 24
_MAX_ROWS = 500
_CELL_PX = 112
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1060px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; } th, td { text-align: left; padding: .15rem .8rem .15rem 0;
border-bottom: 1px solid #ddd; vertical-align: top; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
img, svg { max-width: 100%; height: auto; } .none { color: #666; } code { word-break: break-word; }
"""


def write_report(
    folder: Path, manifest: DatasetManifest, records: Sequence[CaptionRecord], *, max_rejected_share: float
) -> None:
    """Write report.html and figures/ into the dataset's folder; the pictures must lie there already."""
    figures = folder / "figures"
    _write_figures(figures, records)
    _write_grid(figures / "samples.png", folder, _sampled(records, seed=manifest.seed))
    pairs = [finding for finding in manifest.findings if len(finding.image_ids) == 2]
    if pairs:
        _write_pairs(figures / "near_duplicates.png", folder, pairs[:_MAX_PAIRS], records)
    body = [
        f"<h1>Dataset: {escape(manifest.source)}</h1>",
        _summary(manifest, max_rejected_share),
        "<h2>Samples</h2>",
        '<p>Drawn by seed. Rows: train, val, test.</p><img src="figures/samples.png" alt="sample pictures">',
        "<h2>Distributions by split</h2>",
        *(f'<p><img src="figures/{name}.svg" alt="{name} by split"></p>' for name in _present(records)),
        "<h2>Source sizes</h2>",
        '<p><img src="figures/size.svg" alt="histogram of the longer side of the source photos"></p>',
        *_near_duplicate_section(pairs),
        *_tables(manifest),
    ]
    page = "\n".join(body)
    write_text(
        folder / "report.html",
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Dataset report</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{page}\n</body></html>\n",
    )


def _summary(manifest: DatasetManifest, max_rejected_share: float) -> str:
    n_examples = sum(manifest.n_examples.values())
    n_opened = n_examples + len(manifest.rejected)
    rows = [
        ("Rows or files in the source", manifest.n_rows),
        ("Selected", manifest.n_selected),
        ("Selected, but the photo is not there", manifest.n_missing),
        ("Malformed rows", len(manifest.malformed_rows)),
        ("Photos that cannot be used", f"{len(manifest.rejected)} of {n_opened} (limit {max_rejected_share:.1%})"),
        ("Findings", len(manifest.findings)),
        *((f"Examples in {split}", manifest.n_examples[split]) for split in SPLITS),
        ("Side of the prepared pictures", f"{manifest.resolution_px} px"),
    ]
    return _table(("", ""), rows)


def _write_figures(folder: Path, records: Sequence[CaptionRecord]) -> None:
    for name in _present(records):
        counts = {split: Counter(_value(r, name) for r in records if r.split == split) for split in SPLITS}
        total: Counter[str] = sum(counts.values(), Counter())
        labels = [value for value, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))]
        if name == "year":
            labels.sort()
        shown = labels[:_MAX_BARS]
        shares = {split: [counts[split][value] / max(1, counts[split].total()) for value in shown] for split in SPLITS}
        more = f" (the {_MAX_BARS} most common of {len(labels)})" if len(labels) > _MAX_BARS else ""
        write_text(folder / f"{name}.svg", grouped_bars(shown, shares, title=f"Share of each {name}{more}"))
    sides = [max(record.source_width_px, record.source_height_px) for record in records]
    write_text(folder / "size.svg", histogram(sides, title="Longer side of the source photos", unit="px"))


def _present(records: Sequence[CaptionRecord]) -> list[str]:
    return [name for name in SHOWN_ATTRIBUTES if any(name in record.attributes for record in records)]


def _value(record: CaptionRecord, name: str) -> str:
    return record.attributes.get(name, "(none)")


def _sampled(records: Sequence[CaptionRecord], *, seed: int) -> list[list[CaptionRecord]]:
    rows = []
    for split in SPLITS:
        ordered = sorted((r for r in records if r.split == split), key=lambda r: draw_rank(r.image_id, seed=seed))
        rows.append(ordered[:8])
    return rows


def _write_grid(target: Path, folder: Path, rows: Sequence[Sequence[CaptionRecord]]) -> None:
    """Lay pictures out in rows, each shrunk into a square cell."""
    n_columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (n_columns * _CELL_PX, len(rows) * _CELL_PX), "white")
    for y, row in enumerate(rows):
        for x, record in enumerate(row):
            with Image.open(folder / record.file) as picture:
                small = picture.resize((_CELL_PX - 4, _CELL_PX - 4), Image.Resampling.LANCZOS)
            sheet.paste(small, (x * _CELL_PX + 2, y * _CELL_PX + 2))
    with atomic_path(target) as path:
        sheet.save(path)


def _write_pairs(target: Path, folder: Path, pairs: Sequence[Finding], records: Sequence[CaptionRecord]) -> None:
    by_id = {record.image_id: record for record in records}
    cells = [by_id[image_id] for finding in pairs for image_id in finding.image_ids]
    _write_grid(target, folder, [cells[start : start + 8] for start in range(0, len(cells), 8)])


def _near_duplicate_section(pairs: Sequence[Finding]) -> list[str]:
    if not pairs:
        return []
    shown = f"the first {_MAX_PAIRS} of {len(pairs)}" if len(pairs) > _MAX_PAIRS else f"all {len(pairs)}"
    return [
        "<h2>Near-duplicates</h2>",
        f"<p>Neighbours two by two, {shown}, those across splits first; the table below names them.</p>",
        '<img src="figures/near_duplicates.png" alt="pairs of near-duplicates">',
    ]


def _tables(manifest: DatasetManifest) -> list[str]:
    return [
        "<h2>Photos that cannot be used</h2>",
        _table(("id", "reason", "detail"), [(r.image_id, r.reason, r.detail) for r in manifest.rejected]),
        "<h2>Findings</h2><p>Nothing was left out for these.</p>",
        _table(("kind", "ids", "detail"), [(f.kind, ", ".join(f.image_ids), f.detail) for f in manifest.findings]),
        "<h2>Malformed rows</h2>",
        _table(
            ("line", "cells", "id", "what was done"),
            [(row.line, row.n_cells, row.image_id, row.action) for row in manifest.malformed_rows],
        ),
        "<h2>Missing photos</h2>",
        f"<p><code>{escape(', '.join(manifest.missing_ids)) or 'None.'}</code></p>",
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    listed = list(rows)
    if not listed:
        return '<p class="none">None.</p>'
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = [
        "<tr>"
        + "".join(f"<td{' class=n' if isinstance(cell, int) else ''}>{escape(str(cell))}</td>" for cell in row)
        + "</tr>"
        for row in listed[:_MAX_ROWS]
    ]
    more = f"<p>and {len(listed) - _MAX_ROWS} more, all in manifest.json</p>" if len(listed) > _MAX_ROWS else ""
    return f"<table><tr>{head}</tr>\n" + "\n".join(lines) + f"</table>{more}"
