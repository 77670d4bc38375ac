"""The wall: every prompt and seed at one step, so that one slider moves all pictures at once. It filters nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from dashboard.components.markup import picture
from dashboard.components.sample_grid import GridLook, picture_scores
from loupe.records import BASE_STEP
from loupe.run_files import Cells
from loupe.run_samples import SampleKey, SampleView
from loupe.wording import step_label

EAGER_TILES = 12


def sample_wall(
    samples: Iterable[SampleView],
    texts: Mapping[str, str],
    per_image: Mapping[SampleKey, Cells],
    look: GridLook,
) -> str:
    """Return the pictures side by side, as many to a line as fit, each with its prompt, seed and scores."""
    tiles = []
    for place, sample in enumerate(samples):
        text = texts.get(sample.prompt_id, sample.prompt_id)
        alt = f"{step_label(sample.step)}, seed {sample.seed_index}: {text}"
        shown = picture(sample, side_px=look.side_px, natural_px=look.natural_px, alt=alt, eager=place < EAGER_TILES)
        base = per_image.get((sample.prompt_id, sample.seed_index, BASE_STEP))
        scores = picture_scores(per_image.get(sample.key), base, look)
        title = escape(text, quote=True)
        tiles.append(
            f'<figure class="lp-brick" style="width:{look.side_px}px">{shown}<figcaption title="{title}">'
            f"<b>{escape(sample.prompt_id)}</b> seed {sample.seed_index}</figcaption>{scores}</figure>"
        )
    return f'<div class="lp-wall">{"".join(tiles)}</div>'
