"""The grid prompt x checkpoint, seed by seed: pictures first, the scores of each beneath it. It filters nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

from dashboard.components.markup import picture
from loupe.evaluation_records import Selection
from loupe.metric_specs import MetricSpec
from loupe.records import BASE_STEP, PromptRecord
from loupe.run_files import Cells
from loupe.run_samples import SampleKey, SampleView
from loupe.sample_order import yes_or_no
from loupe.score_html import recommended_chip
from loupe.wording import number, step_label

EAGER_ROWS = 2


@dataclass(frozen=True, slots=True)
class GridLook:
    """What all parts of one grid share."""

    steps: tuple[int, ...]
    side_px: int
    natural_px: int
    image_specs: tuple[MetricSpec, ...]
    """Metrics that have a value per picture."""
    gates: frozenset[str]
    """Columns that say yes or no of a picture, as sample_order.gate_columns tells them."""
    selection: Selection | None


def grid_header(look: GridLook, notes: Mapping[int, str]) -> str:
    """Return the line of checkpoint names that stays in sight; `notes` are a few words per step."""
    cells = "".join(
        f'<div class="{_column_class(step, look)}"><b>{step_label(step)}</b>{_chip(step, look)}'
        f"<small>{escape(notes.get(step, ''))}</small></div>"
        for step in look.steps
    )
    return f'<div class="lp-row lp-head" style="{_columns(look)}"><div class="lp-seed"></div>{cells}</div>'


def prompt_rows(
    prompt: PromptRecord,
    samples: Iterable[SampleView],
    per_image: Mapping[SampleKey, Cells],
    look: GridLook,
    *,
    is_first: bool,
) -> str:
    """Return one prompt's heading and its pictures, a line per seed."""
    by_seed: dict[int, dict[int, SampleView]] = {}
    for sample in samples:
        by_seed.setdefault(sample.seed_index, {})[sample.step] = sample
    lines = "".join(
        _seed_line(prompt, row, per_image, look, eager=is_first and place < EAGER_ROWS)
        for place, row in enumerate(by_seed.values())
    )
    return (
        f'<section class="lp-prompt"><h3><span>{escape(prompt.text)}</span> '
        f"<code>{escape(prompt.prompt_id)}</code></h3>{lines}</section>"
    )


def _seed_line(
    prompt: PromptRecord,
    row: Mapping[int, SampleView],
    per_image: Mapping[SampleKey, Cells],
    look: GridLook,
    *,
    eager: bool,
) -> str:
    first = next(iter(row.values()))
    seed = f"<small>{first.seed}</small>" if first.seed is not None else ""
    cells = "".join(_cell(prompt, row.get(step), row, per_image, look, eager=eager) for step in look.steps)
    return (
        f'<div class="lp-row" style="{_columns(look)}"><div class="lp-seed" title="Seed of the initial noise">'
        f"seed {first.seed_index}{seed}</div>{cells}</div>"
    )


def _cell(
    prompt: PromptRecord,
    sample: SampleView | None,
    row: Mapping[int, SampleView],
    per_image: Mapping[SampleKey, Cells],
    look: GridLook,
    *,
    eager: bool,
) -> str:
    if sample is None:
        return "<div></div>"
    alt = f"{step_label(sample.step)}, seed {sample.seed_index}: {prompt.text}"
    shown = picture(sample, side_px=look.side_px, natural_px=look.natural_px, alt=alt, eager=eager)
    base = row.get(BASE_STEP)
    scores = picture_scores(per_image.get(sample.key), per_image.get(base.key) if base else None, look)
    return f'<div class="{_column_class(sample.step, look)}" style="width:{look.side_px}px">{shown}{scores}</div>'


def picture_scores(values: Cells | None, base: Cells | None, look: GridLook) -> str:
    """Return a picture's scores with their differences to the base model's picture; '' where there are none."""
    if not values:
        return ""
    parts = [_score(spec, values, base or {}, look.gates) for spec in look.image_specs if spec.image_column in values]
    return f'<div class="lp-values">{"".join(parts)}</div>'


def _score(spec: MetricSpec, values: Cells, base: Cells, gates: frozenset[str]) -> str:
    column = spec.image_column or spec.key
    value, before = values[column], base.get(column)
    name = escape(column.removesuffix("_ok"))
    title = escape(spec.label, quote=True)
    holds = yes_or_no(spec, value) if column in gates else None
    if holds is not None:
        wanted = f"not {name}" if spec.better == "lower" and holds else name
        return (
            f'<span class="{"yes" if holds else "no"}" title="{title}: {"yes" if value else "no"}">'
            f"{'✓' if holds else '✗'} {wanted}</span>"
        )
    text = number(float(value), unit=spec.unit)
    gain = ""
    if isinstance(before, float) and before != value:
        gain = f" <i>{number(float(value) - before, unit=spec.unit, signed=True)}</i>"
    return f'<span title="{title}, and its difference to the base model">{name} {text}{gain}</span>'


def _chip(step: int, look: GridLook) -> str:
    return recommended_chip(look.selection.verdict) if look.selection and look.selection.step == step else ""


def _column_class(step: int, look: GridLook) -> str:
    chosen = " chosen" if look.selection and look.selection.step == step else ""
    return f"lp-cell{' base' if step == BASE_STEP else ''}{chosen}"


def _columns(look: GridLook) -> str:
    return f"grid-template-columns:var(--lp-seed-width) repeat({len(look.steps)},{look.side_px}px)"
