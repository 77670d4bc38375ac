"""The table of base model and checkpoints with every score and what is needed to read it. It computes no score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from loupe.evaluation_records import Null, Selection
from loupe.paths import step_name
from loupe.run_scores import MetricColumn, Score, StepScores
from loupe.wording import direction, interval, number, step_label

WITHOUT_EXTRACTOR = {"pixels": "pixels", "training": "validation photos"}


def score_table(
    rows: Sequence[StepScores],
    metrics: Sequence[MetricColumn],
    selection: Selection | None,
    absent: Mapping[str, str],
) -> str:
    """Return the table; a score that could not be computed is a dash with its reason from `absent`, never a zero."""
    head = "".join(_head(column) for column in metrics)
    body = "".join(_row(row, metrics, selection, absent) for row in rows)
    foot = _reference_rows(metrics)
    return (
        '<div class="lp-scroll"><table class="lp-scores"><thead><tr><th scope="col">Checkpoint</th>'
        f'{head}<th scope="col">Pictures<small>valid of all</small></th></tr></thead>'
        f"<tbody>{body}</tbody><tfoot>{foot}</tfoot></table></div>"
    )


def recommended_chip(verdict: str | None) -> str:
    """Return the mark of the recommended checkpoint; without a clear winner it says so."""
    text = {"selected": "★ Recommended", "no clear winner": "Exported, no clear winner"}.get(verdict or "")
    return f'<span class="lp-chip">{text}</span>' if text else ""


def _head(column: MetricColumn) -> str:
    spec = column.spec
    extractor = column.extractor.name if column.extractor else "extractor unknown here"
    source = WITHOUT_EXTRACTOR.get(spec.extractor, extractor)
    return (
        f'<th scope="col" title="{escape(spec.meaning, quote=True)}">{escape(spec.label)}'
        f"<small>{direction(spec)}</small><small>{escape(source)}</small></th>"
    )


def _row(
    row: StepScores, metrics: Sequence[MetricColumn], selection: Selection | None, absent: Mapping[str, str]
) -> str:
    chosen = selection is not None and selection.step == row.step
    chip = recommended_chip(selection.verdict) if selection and chosen else ""
    gate = _gate_note(row.step, selection)
    reasons = {column.spec.key: absent.get(f"{step_name(row.step)}/{column.spec.key}", "") for column in metrics}
    cells = "".join(
        f"<td>{_cell(row.scores.get(column.spec.key), column, reasons[column.spec.key])}</td>" for column in metrics
    )
    count = f'{row.n_used} <small class="of">of {row.n_images}</small>' if row.n_images is not None else "–"
    return (
        f'<tr class="{"chosen" if chosen else ""}"><th scope="row">{step_label(row.step)}{chip}{gate}</th>'
        f"{cells}<td>{count}</td></tr>"
    )


def _gate_note(step: int, selection: Selection | None) -> str:
    reason = selection.gates_failed.get(step_name(step)) if selection else None
    return f'<small class="gate">gate failed: {escape(reason)}</small>' if reason else ""


def _cell(score: Score | None, column: MetricColumn, reason: str) -> str:
    if score is None:
        return f'–<small class="gate">{escape(reason or "not computed")}</small>'
    unit = column.spec.unit
    parts = [f"<b>{number(score.value, unit=unit)}</b>"]
    if score.lo is not None and score.hi is not None:
        parts.append(f"<small>{interval(score.lo, score.hi, unit=unit)}</small>")
    if score.diff_base is not None:
        to_best = _to_best(score, unit)
        text = f"{number(score.diff_base, unit=unit, signed=True)} to base"
        if score.diff_base_lo is not None and score.diff_base_hi is not None:
            around = interval(score.diff_base_lo, score.diff_base_hi, unit=unit, signed=True)
            text = f'<span title="95 % interval of the paired difference: {around}{to_best}">{text}</span>'
        parts.append(f'<small class="diff">{text}</small>')
    return "".join(parts)


def _to_best(score: Score, unit: str) -> str:
    """Return the difference to the checkpoint that is best in the score, for a hint; '' for that one itself."""
    if score.diff_best is None:
        return ""
    text = f"; to the best: {number(score.diff_best, unit=unit, signed=True)}"
    if score.diff_best_lo is None or score.diff_best_hi is None:
        return text
    return f"{text} {interval(score.diff_best_lo, score.diff_best_hi, unit=unit, signed=True)}"


def _reference_rows(metrics: Sequence[MetricColumn]) -> str:
    real = [
        f"{number(c.real.value, unit=c.spec.unit)}<small>of {c.real.n} photos</small>" if c.real else ""
        for c in metrics
    ]
    null = [
        f"{number(c.null.mean, unit=c.spec.unit)}{_spread(c, c.null)}"
        f"<small{_floor_hint(c, c.null)}>{_compared(c.null)}</small>"
        if c.null
        else ""
        for c in metrics
    ]
    target = [number(c.target, unit=c.spec.unit) if c.target is not None else "" for c in metrics]
    controls = [
        (name.capitalize(), f"what {name} score in place of pictures: a score near this says little", cells)
        for name, cells in _control_cells(metrics).items()
    ]
    named = (
        ("Real photos", "the same score of the validation photos", real),
        ("Null", "what real photos score", null),
        ("Target", "asked for in params.yaml", target),
        *controls,
    )
    return "".join(_reference_row(name, hint, cells) for name, hint, cells in named if any(cells))


def _spread(column: MetricColumn, null: Null) -> str:
    """Return the null's interval; '' for one draw, which has none."""
    if null.lo == null.hi:
        return ""
    return f"<small>{interval(null.lo, null.hi, unit=column.spec.unit)}</small>"


def _floor_hint(column: MetricColumn, null: Null) -> str:
    """Return the title that says what the null bounds; '' where it compares nothing or lower is not better."""
    if not null.n_b or column.spec.better != "lower":
        return ""
    return ' title="real against real: no score can be expected to do better"'


def _compared(null: Null) -> str:
    return f"{null.n_a} against {null.n_b} photos" if null.n_b else f"of {null.n_a} photos"


def _control_cells(metrics: Sequence[MetricColumn]) -> dict[str, list[str]]:
    """Return noise, blank white, shuffled captions -> a cell per metric, empty where it has no such control."""
    names = dict.fromkeys(name for column in metrics for name in column.controls)
    return {
        name: [number(c.controls[name], unit=c.spec.unit) if name in c.controls else "" for c in metrics]
        for name in names
    }


def _reference_row(name: str, hint: str, cells: Sequence[str]) -> str:
    shown = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><th scope="row" title="{hint}">{name}</th>{shown}<td></td></tr>'
