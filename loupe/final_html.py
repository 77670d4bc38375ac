"""The final result on the test split as a table: base model against the selected checkpoint. It computes no score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from loupe.evaluation_records import Selection, TestLook
from loupe.looks import look_note
from loupe.metric_specs import MetricSpec, known_specs
from loupe.wording import direction, interval, number, step_label


def final_table(final: Mapping[str, Any]) -> str:
    """Return the table of RunStore.final() with final_scores(), a line per metric; what is not there is a dash."""
    keys = {name.removesuffix("_selected") for name in final if name.endswith("_selected")}
    rows = "".join(_row(final, spec) for spec in known_specs(keys).values())
    step = final.get("step")
    selected = step_label(step) if isinstance(step, int) else "Selected"
    return (
        '<div class="lp-scroll"><table class="lp-scores final"><thead><tr><th scope="col">Score</th>'
        f'<th scope="col">Base model</th><th scope="col">{selected}</th><th scope="col">Difference'
        '<small>95 % interval, paired by prompt</small></th><th scope="col">Real test photos</th>'
        f'<th scope="col">Null<small>real against real</small></th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def final_note(final: Mapping[str, Any], looks: Sequence[TestLook]) -> str:
    """Return in one line what the numbers are of, and whether the test split was looked at before."""
    counts = [
        f"{final[key]} {name}"
        for key, name in (("n_images", "pictures each"), ("n_prompts", "test prompts"), ("n_real", "real test photos"))
        if isinstance(final.get(key), int)
    ]
    of = f" {', '.join(counts)}." if counts else ""
    return f"{look_note(looks)}{of}"


def gates_on_test(final: Mapping[str, Any] | None, selection: Selection | None) -> str:
    """Return a sentence where the recommended checkpoint fails gates on the test split; "" where it fails none."""
    if not final or not selection or selection.verdict != "selected" or final.get("step") != selection.step:
        return ""
    failed = final.get("gates_failed")
    if not isinstance(failed, str) or not failed:
        return ""
    return f"On the test split, with new prompts and seeds, it fails gates that it passed before: {failed}."


def _row(final: Mapping[str, Any], spec: MetricSpec) -> str:
    cells = "".join(
        f"<td>{_cell(final, f'{spec.key}_{part}', spec, signed=part == 'diff')}</td>"
        for part in ("base", "selected", "diff", "real", "null")
    )
    title = escape(spec.meaning, quote=True)
    return f'<tr><th scope="row" title="{title}">{escape(spec.label)}<small>{direction(spec)}</small></th>{cells}</tr>'


def _cell(final: Mapping[str, Any], name: str, spec: MetricSpec, *, signed: bool) -> str:
    value, lo, hi = (final.get(f"{name}{end}") for end in ("", "_lo", "_hi"))
    if not isinstance(value, int | float):
        return "–"
    around = ""
    if isinstance(lo, int | float) and isinstance(hi, int | float):
        around = f"<small>{interval(lo, hi, unit=spec.unit, signed=signed)}</small>"
    return f"<b>{number(value, unit=spec.unit, signed=signed)}</b>{around}"
