"""One strip of pictures per checkpoint for a few prompts: the run at a glance. It chooses nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

from dashboard.components.markup import picture
from loupe.evaluation_records import Selection
from loupe.records import PromptRecord
from loupe.run_samples import SampleView
from loupe.score_html import recommended_chip
from loupe.wording import step_label


def checkpoint_strips(
    prompts: Sequence[PromptRecord],
    steps: Sequence[int],
    samples: Collection[SampleView],
    *,
    side_px: int,
    natural_px: int,
    selection: Selection | None,
) -> str:
    """Return one line of pictures per step, in the order of `prompts`, under the prompts' texts."""
    columns = f"grid-template-columns:var(--lp-name-width) repeat({len(prompts)},{side_px}px)"
    texts = {prompt.prompt_id: prompt.text for prompt in prompts}
    by_cell = {(sample.step, sample.prompt_id): sample for sample in samples}
    lines = []
    for step in steps:
        chosen = selection is not None and selection.step == step
        chip = recommended_chip(selection.verdict) if selection and chosen else ""
        cells = "".join(
            f"<div>{_picture(by_cell.get((step, prompt_id)), text, side_px, natural_px)}</div>"
            for prompt_id, text in texts.items()
        )
        lines.append(
            f'<div class="lp-row {"chosen" if chosen else ""}" style="{columns}">'
            f'<div class="lp-name"><b>{step_label(step)}</b>{chip}</div>{cells}</div>'
        )
    head = "".join(f'<div title="{escape(text, quote=True)}">{escape(text)}</div>' for text in texts.values())
    return (
        f'<div class="lp-scroll lp-strips"><div class="lp-row lp-texts" style="{columns}"><div></div>{head}</div>'
        f"{''.join(lines)}</div>"
    )


def _picture(sample: SampleView | None, text: str, side_px: int, natural_px: int) -> str:
    if sample is None:
        return ""
    alt = f"{step_label(sample.step)}: {text}"
    return picture(sample, side_px=side_px, natural_px=natural_px, alt=alt, eager=True)
