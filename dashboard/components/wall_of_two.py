"""Pictures of two runs side by side, prompt by prompt. It knows pictures by their hash alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from dashboard.image_route import picture_url
from loupe.records import PromptRecord

MAX_SIDE_PX = 384


def wall_of_two(
    prompts: Sequence[PromptRecord],
    one: Mapping[str, str | None],
    other: Mapping[str, str | None],
    *,
    titles: tuple[str, str],
    side_px: int,
    seed_index: int,
) -> str:
    """Return a pair per prompt; `one` and `other` are prompt id -> SHA-256, None where the picture is not here.

    A click on a picture opens the row of its prompt and seed in the large view, which calls the two by `titles`.
    """
    side_px = min(side_px, MAX_SIDE_PX)
    pairs = "".join(
        f'<article class="lp-finding"><h3 class="lp-two" title="{escape(prompt.text, quote=True)}">'
        f'{escape(prompt.text)}</h3><div class="lp-wall">'
        + "".join(
            _tile(hashes.get(prompt.prompt_id), title, prompt, seed_index, side_px)
            for hashes, title in ((one, titles[0]), (other, titles[1]))
        )
        + "</div></article>"
        for prompt in prompts
    )
    return f'<div class="lp-findings">{pairs}</div>'


def _tile(sha256: str | None, title: str, prompt: PromptRecord, seed_index: int, side_px: int) -> str:
    if sha256 is None:
        shown = (
            f'<div class="lp-tile missing" style="width:{side_px}px;height:{side_px}px"><b>Missing</b>'
            "<span>DVC's cache no longer holds it.</span></div>"
        )
    else:
        url, look = picture_url(sha256), escape(f"{prompt.prompt_id}-{seed_index}/{title}", quote=True)
        shown = (
            f'<a class="lp-shot" href="{url}" target="_blank" rel="noopener" data-look="{look}"><img class="lp-img" '
            f'src="{url}" width="{side_px}" height="{side_px}" loading="lazy" decoding="async" '
            f'alt="{escape(f"{title}: {prompt.text}", quote=True)}"></a>'
        )
    return (
        f'<figure class="lp-brick" style="width:{side_px}px">{shown}<figcaption>{escape(title)}</figcaption></figure>'
    )
