"""The recommendation as a plain-language paragraph with its numbers. It decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loupe.metrics.bootstrap import percentile_interval
from loupe.metrics.image_set import Array
from loupe.metrics.selection import Comparison, StepEvidence
from loupe.paths import step_name
from loupe.records import ExtractorInfo, Null


@dataclass(frozen=True, slots=True)
class Setting:
    """What the numbers speak of."""

    distance_key: str
    text_key: str
    n_prompts: int
    n_real: int
    distance_extractor: ExtractorInfo
    text_extractor: ExtractorInfo
    null: Null | None
    """Of the distance: real photos against real photos."""


def selection_reason(
    comparison: Comparison, base: StepEvidence, checkpoints: Sequence[StepEvidence], setting: Setting
) -> str:
    """Return the paragraph of metrics/selection.json."""
    chosen = comparison.chosen
    sentences = [_verdict(comparison, setting), *_against_best(comparison, chosen)]
    if chosen.distance is not None:
        sentences.append(_against_base(comparison, base, chosen, setting))
    sentences.append(_scale(setting, chosen))
    if comparison.gates_failed:
        left_out = "; ".join(f"{step_name(step)} ({gates})" for step, gates in comparison.gates_failed.items())
        sentences.append(f"Left out by the gates: {left_out}.")
    if comparison.draws_short_of:
        sentences.append(
            f"With {len(checkpoints)} checkpoints no claim against base can pass the correction below "
            f"{comparison.draws_short_of} bootstrap draws: raise evaluate.bootstrap_draws."
        )
    return " ".join(sentences)


def _verdict(comparison: Comparison, setting: Setting) -> str:
    name = step_name(comparison.chosen.step)
    if comparison.verdict == "selected":
        if len(comparison.tied) == 1:
            return f"{name} is recommended: no other eligible checkpoint comes close by {setting.distance_key}."
        return (
            f"{name} is recommended: it is the earliest of {len(comparison.tied)} checkpoints (steps "
            f"{_listed(comparison.tied)}) that cannot be told from the best by {setting.distance_key}."
        )
    if comparison.best is None:
        return (
            f"There is no clear winner: no checkpoint passes the gates. Export takes {name} because something must be "
            "taken, not because it is good."
        )
    return (
        f"There is no clear winner: of the checkpoints that pass the gates none can be told from the base model by "
        f"{setting.distance_key}. Export takes {name}, the earliest of those that cannot be told from the lowest value."
    )


def _against_best(comparison: Comparison, chosen: StepEvidence) -> list[str]:
    best = comparison.best
    if best is None or best is chosen:
        return []
    difference = _with_interval(_number(chosen) - _number(best), chosen.distance_draws - best.distance_draws)
    return [f"The lowest value is {_number(best):.4g} at {step_name(best.step)}; the difference to it is {difference}."]


def _against_base(comparison: Comparison, base: StepEvidence, chosen: StepEvidence, setting: Setting) -> str:
    parts = [f"{setting.distance_key} (lower is better) is {_number(chosen):.4g}"]
    if base.distance is not None:
        gain = _with_interval(chosen.distance - base.distance, chosen.distance_gain)
        p_value = comparison.distance_p.get(chosen.step)
        corrected = "" if p_value is None else f", p = {p_value:.2g} after Holm's correction"
        parts.append(f"against {base.distance:.4g} for the base model (difference {gain}{corrected})")
    if chosen.text_score is not None and base.text_score is not None:
        gain = _with_interval(chosen.text_score - base.text_score, chosen.text_gain)
        parts.append(
            f"and {setting.text_key} (higher is better) {chosen.text_score:.4g} against {base.text_score:.4g} "
            f"(difference {gain})"
        )
    return " ".join(parts) + "."


def _scale(setting: Setting, chosen: StepEvidence) -> str:
    measured = (
        f"Measured on {chosen.n_used} pictures of {setting.n_prompts} prompts against {setting.n_real} real val photos "
        f"with {setting.distance_extractor.name} and {setting.text_extractor.name}; intervals are 95 % and paired by "
        "prompt."
    )
    null = setting.null
    if null is None:
        return measured
    return (
        f"{measured} Real photos against real photos ({null.n_a} against {null.n_b}) give {setting.distance_key} "
        f"{null.mean:.4g} [{null.lo:.4g}, {null.hi:.4g}]: nothing below that can mean better."
    )


def _with_interval(value: float, draws: Array) -> str:
    interval = percentile_interval(draws) if len(draws) else None
    shown = f"{value:+.4g}"
    return shown if interval is None else f"{shown} [{interval.lo:+.4g}, {interval.hi:+.4g}]"


def _number(checkpoint: StepEvidence) -> float:
    return np.nan if checkpoint.distance is None else checkpoint.distance


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(str(step) for step in steps)
