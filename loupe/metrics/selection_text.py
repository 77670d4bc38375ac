"""The recommendation as a record with its numbers, and as a plain-language paragraph. It decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loupe.evaluation_records import ExtractorInfo, Null, Selection, Standing
from loupe.metric_specs import spec_of
from loupe.metrics.bootstrap import Interval
from loupe.metrics.scalars import rounded
from loupe.metrics.selection import Comparison
from loupe.metrics.selection_evidence import Row
from loupe.paths import step_name
from loupe.records import BASE_STEP

SAID = {"higher": "higher is better", "lower": "lower is better", "closer to real": "1 is as diverse as real photos"}


@dataclass(frozen=True, slots=True)
class Setting:
    """What the numbers speak of."""

    rows: Mapping[int, Row]
    """Step -> its row of metrics/checkpoints.csv, the base model's included."""
    distance_key: str
    n_prompts: int
    n_real: int
    extractors: tuple[ExtractorInfo, ...]
    null: Null | None
    """Of the distance: real photos against real photos."""


def selection_record(comparison: Comparison, reason: str) -> Selection:
    """Return what goes into metrics/selection.json."""
    standings = {}
    for step, merit in comparison.merits.items():
        shown: dict[str, float] = {"merit": rounded(merit.value)}
        if comparison.best is not None:
            difference, interval = comparison.to_best(step)
            shown["to_best"] = rounded(difference)
            if interval is not None:
                shown |= {"to_best_lo": rounded(interval.lo), "to_best_hi": rounded(interval.hi)}
        if step in comparison.merit_p:
            shown["p_base"] = rounded(comparison.merit_p[step])
        if step in comparison.best_p:
            shown["p_best"] = rounded(comparison.best_p[step])
        standings[step_name(step)] = Standing(**shown)
    return Selection(
        verdict=comparison.verdict,
        step=comparison.chosen.step,
        reason=reason,
        gates_failed={step_name(step): gates for step, gates in comparison.gates_failed.items()},
        tied_steps=comparison.tied,
        criteria=comparison.criteria,
        front_steps=comparison.front,
        standings=standings,
    )


def selection_reason(comparison: Comparison, setting: Setting) -> str:
    """Return the paragraph of metrics/selection.json."""
    sentences = [_verdict(comparison), *_against_others(comparison), *_against_base(comparison, setting)]
    sentences.append(_scale(comparison, setting))
    if comparison.gates_failed:
        left_out = "; ".join(f"{step_name(step)} ({gates})" for step, gates in comparison.gates_failed.items())
        sentences.append(f"Left out by the gates: {left_out}.")
    if comparison.draws_short_of:
        sentences.append(
            f"With {len(comparison.merits)} checkpoints no claim against base can pass the correction below "
            f"{comparison.draws_short_of} bootstrap draws: raise evaluate.bootstrap_draws."
        )
    return " ".join(sentences)


def _verdict(comparison: Comparison) -> str:
    name = step_name(comparison.chosen.step)
    if comparison.verdict == "selected":
        if len(comparison.tied) == 1:
            others = comparison.merits.keys() - comparison.gates_failed.keys() - {comparison.chosen.step}
            why = "every other one that passes them is clearly worse in something or not clearly above the base model"
            return f"{name} is recommended: it passes the gates, and {why if others else 'no other checkpoint does'}."
        return (
            f"{name} is recommended: it is the earliest of {len(comparison.tied)} checkpoints (steps "
            f"{_listed(comparison.tied)}) that cannot be told from the best."
        )
    if comparison.best is not None:
        return (
            "There is no clear winner: of the checkpoints that pass the gates none can be told from the base model. "
            f"Export takes {name}, the earliest of those that cannot be told from the best."
        )
    if not comparison.merits:
        return (
            f"There is no clear winner: there is nothing to compare checkpoints by. Export takes {name} because "
            f"something must be taken, not because it is good."
        )
    return (
        f"There is no clear winner: no checkpoint passes the gates. Export takes {name}, which fails the fewest of "
        f"them and comes nearest to passing, because something must be taken, not because it is good."
    )


def _against_others(comparison: Comparison) -> list[str]:
    best = comparison.best
    if best is None:
        return []
    sentences = []
    if best.step != comparison.chosen.step:
        difference = _with_interval(*comparison.to_best(comparison.chosen.step))
        sentences.append(f"The best merit is that of {step_name(best.step)}; the difference to it is {difference}.")
    behind = []
    for step in comparison.merits:
        difference, interval = comparison.to_best(step)
        if step in comparison.best_p and comparison.is_behind(step):
            behind.append(f"{step_name(step)} ({_with_interval(difference, interval)})")
    if behind:
        sentences.append(f"Clearly behind the best in merit: {', '.join(behind)}.")
    return sentences


def _against_base(comparison: Comparison, setting: Setting) -> list[str]:
    row, base = setting.rows[comparison.chosen.step], setting.rows[BASE_STEP]
    parts = []
    for key in comparison.criteria.values():
        value, of_base = row[key], base[key]
        if value is None or of_base is None:
            continue
        difference, *ends = (row.get(f"{key}_diff_base{end}") for end in ("", "_lo", "_hi"))
        interval = None if ends[0] is None or ends[1] is None else Interval(ends[0], ends[1])
        paired = "no paired difference" if difference is None else _with_interval(difference, interval)
        parts.append(f"{key} ({SAID[spec_of(key).better]}) {value:.4g} against {of_base:.4g} ({paired})")
    if not parts:
        return []
    p_value = comparison.merit_p.get(comparison.chosen.step)
    together = "" if p_value is None else f"; together p = {p_value:.2g} after Holm's correction"
    return [f"Against the base model: {'; '.join(parts)}{together}."]


def _scale(comparison: Comparison, setting: Setting) -> str:
    names = " and ".join(info.name for info in setting.extractors)
    criteria = _listed(list(comparison.criteria)) or "nothing"
    measured = (
        f"Measured on {comparison.chosen.n_used} pictures of {setting.n_prompts} prompts against {setting.n_real} real "
        f"val photos with {names}; intervals are 95 % and paired by prompt. Merit is the weighted sum of the gains "
        f"over base in {criteria}, each in units of its uncertainty."
    )
    row, key = setting.rows[comparison.chosen.step], setting.distance_key
    lo, hi = (row.get(f"{key}_diff_base{end}") for end in ("_lo", "_hi"))
    if lo is not None and hi is not None:
        measured += (
            f" A difference in {key} to the base model of less than about {(hi - lo) / 2:.2g} would not show with this "
            "many."
        )
    null = setting.null
    if null is None:
        return measured
    given = f"{measured} Real photos against real photos ({null.n_a} against {null.n_b}) give {setting.distance_key} "
    if null.n_draws == 1 or null.lo == null.hi:
        fewer = f", of fewer photos than the {comparison.chosen.n_used} pictures"
        return f"{given}{null.mean:.4g}, a single value{fewer if null.n_a < comparison.chosen.n_used else ''}."
    return f"{given}{null.mean:.4g} [{null.lo:.4g}, {null.hi:.4g}]: below that is as near as photos chosen at random."


def _with_interval(value: float, interval: Interval | None) -> str:
    return f"{value:+.4g}" if interval is None else f"{value:+.4g} [{interval.lo:+.4g}, {interval.hi:+.4g}]"


def _listed(items: Sequence[object]) -> str:
    return ", ".join(str(item) for item in items)
