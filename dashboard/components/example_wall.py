"""Examples of the dataset as pictures with what is known of each, and findings with theirs. It opens no file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from dashboard.image_route import picture_url, preview_url
from dashboard.pictures import PREVIEW_SIDE_PX
from loupe.records import CaptionRecord, Finding

TILE_PX = 148


def example_wall(records: Iterable[CaptionRecord], broken: Mapping[str, str], *, resolution_px: int) -> str:
    """Return the pictures side by side, as many to a line as fit; for those in `broken` what is wrong with them."""
    tiles = "".join(_tile(record, broken, resolution_px) for record in records)
    return f'<div class="lp-wall">{tiles}</div>'


def finding_wall(
    findings: Iterable[Finding], by_id: Mapping[str, CaptionRecord], broken: Mapping[str, str], *, resolution_px: int
) -> str:
    """Return each finding with its pictures, a near-duplicate's two side by side."""
    parts = []
    for finding in findings:
        known = [by_id[image_id] for image_id in finding.image_ids if image_id in by_id]
        tiles = "".join(_tile(record, broken, resolution_px) for record in known)
        parts.append(
            f'<article class="lp-finding"><h3>{escape(finding.kind)}</h3><p>{escape(finding.detail)}</p>'
            f'<div class="lp-wall">{tiles}</div></article>'
        )
    return f'<div class="lp-findings">{"".join(parts)}</div>'


def record_table(head: Sequence[str], lines: Sequence[Sequence[object]], *, limit: int = 200) -> str:
    """Return a plain table; of a long one the first `limit` lines and how many there are."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in line)}</tr>" for line in lines[:limit])
    more = f'<p class="lp-note">The first {limit} of {len(lines)}.</p>' if len(lines) > limit else ""
    return (
        f'<div class="lp-scroll"><table class="lp-plain"><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>'
        f"</div>{more}"
    )


def _tile(record: CaptionRecord, broken: Mapping[str, str], resolution_px: int) -> str:
    known = ", ".join(value for name, value in record.attributes.items() if name in ("colour", "gender", "season"))
    shown = _hole(broken[record.image_id]) if record.image_id in broken else _photo(record, resolution_px)
    return (
        f'<figure class="lp-brick" style="width:{TILE_PX}px">{shown}'
        f'<figcaption title="{escape(record.caption, quote=True)}"><b>{escape(record.image_id)}</b> {record.split}'
        f"<br>{escape(known)}</figcaption></figure>"
    )


def _photo(record: CaptionRecord, resolution_px: int) -> str:
    url = picture_url(record.sha256)
    shown = preview_url(record.sha256) if resolution_px > PREVIEW_SIDE_PX else url
    return (
        f'<a class="lp-shot" href="{url}" target="_blank" rel="noopener"><img class="lp-img" src="{shown}" '
        f'width="{TILE_PX}" height="{TILE_PX}" loading="lazy" decoding="async" '
        f'alt="{escape(record.image_id, quote=True)}: {escape(record.caption, quote=True)}"></a>'
    )


def _hole(reason: str) -> str:
    return (
        f'<div class="lp-tile missing" style="width:{TILE_PX}px;height:{TILE_PX}px" '
        f'title="{escape(reason, quote=True)}"><span>{escape(reason)}</span></div>'
    )
