"""Small pieces of HTML that every page shares. Every text that comes from a run is escaped here."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from dashboard.image_route import picture_url, preview_url
from dashboard.pictures import PREVIEW_SIDE_PX
from loupe.run_samples import SampleView
from loupe.run_state import Progress, RunState
from loupe.wording import decision_and_why, duration

_GLYPHS = {"done": "✓", "missing": "○", "running": "▶", "stale": "↻", "corrupt": "!"}
_STATUS = {"done": "", "missing": " to come", "running": " running", "stale": " stale", "corrupt": " corrupt"}
_TILES = {"waiting": "Not drawn yet", "missing": "Missing", "corrupt": "Corrupt", "invalid": "Invalid"}


def headline(title: str, sentence_html: str = "") -> str:
    """Return a page's title, and a sentence below it: in an empty state the one that names the next command."""
    sentence = f"<p>{sentence_html}</p>" if sentence_html else ""
    return f'<header class="lp-headline"><h1>{escape(title)}</h1>{sentence}</header>'


def reasoned(reason: str) -> str:
    """Return a recommendation's decision in one sentence, and behind a 'Why' the sentences that hold it up."""
    decision, why = decision_and_why(reason)
    listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in why)
    behind = f'<details class="lp-why"><summary>Why</summary><ul>{listed}</ul></details>' if why else ""
    return f'<p class="lp-decision">{escape(decision)}</p>{behind}'


def stage_rail(state: RunState) -> str:
    """Return the line of stages with the status of each, in words as well as by sign."""
    items = "".join(
        f'<li class="{stage.status}" title="{escape(stage.detail, quote=True)}">'
        f'<span class="glyph">{_GLYPHS[stage.status]}</span>{stage.name}'
        f"{_STATUS[stage.status]}</li>"
        for stage in state.stages
    )
    return f'<ol class="lp-rail">{items}</ol>'


def state_banner(state: RunState) -> str:
    """Return the run's state with progress, next command and what is wrong; '' for a whole run."""
    if state.kind == "complete":
        return ""
    command = f" Next: <code>{escape(state.next_command)}</code>" if state.next_command else ""
    progress = progress_bar(state.progress) if state.progress else ""
    problems = "".join(f"<li><b>{escape(p.file)}</b> {escape(p.message)}</li>" for p in state.problems)
    listed = f"<ul>{problems}</ul>" if problems else ""
    return (
        f'<div class="lp-banner {state.kind}" role="status"><p><b class="kind">{state.kind}</b> '
        f"{escape(state.summary)}{command}</p>{progress}{listed}</div>"
    )


def progress_bar(progress: Progress) -> str:
    """Return a bar with the count and the time left."""
    share = 100 * progress.done / progress.total if progress.total else 0
    left = f", about {duration(progress.left_s)} left" if progress.left_s is not None else ""
    return (
        f'<div class="lp-progress"><div class="bar"><i style="width:{share:.1f}%"></i></div>'
        f"<span>{progress.done} of {progress.total} {escape(progress.unit)}{left}</span></div>"
    )


def picture(sample: SampleView, *, side_px: int, natural_px: int, alt: str, eager: bool = False) -> str:
    """Return the picture, or a tile of the same size that says why there is none.

    It is shown in its original bytes, unless it is drawn much smaller than it is: then a preview is enough, which links
    to the original.
    """
    if sample.sha256 is None:
        return (
            f'<div class="lp-tile {sample.status}" style="width:{side_px}px;height:{side_px}px" '
            f'title="{escape(sample.reason, quote=True)}"><b>{_TILES[sample.status]}</b>'
            f"<span>{escape(sample.reason)}</span></div>"
        )
    crisp = " crisp" if side_px >= natural_px else ""
    url, shown = picture_url(sample.sha256), picture_url(sample.sha256)
    more = ""
    if side_px <= PREVIEW_SIDE_PX < natural_px:
        shown, more = preview_url(sample.sha256), f' srcset="{preview_url(sample.sha256)} 1x, {url} 2x"'
    note = f'<span class="lp-flag">{_TILES["invalid"]}: {escape(sample.reason)}</span>' if sample.reason else ""
    place = escape(f"{sample.prompt_id}-{sample.seed_index}/{sample.step}", quote=True)
    return (
        f'<a class="lp-shot" href="{url}" target="_blank" rel="noopener" data-look="{place}">'
        f'<img class="lp-img{crisp}" src="{shown}"{more} width="{side_px}" height="{side_px}" '
        f'loading="{"eager" if eager else "lazy"}" decoding="async" alt="{escape(alt, quote=True)}">{note}</a>'
    )


def facts(pairs: Mapping[str, str]) -> str:
    """Return a line of small 'name value' facts."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs.items())
    return f'<dl class="lp-facts">{items}</dl>'
