"""Which checkpoint to recommend, or that there is no clear winner; a fixed rule over scores and bootstrap draws.

1. Gates: at most `max_invalid` invalid pictures, at least `min_background_ok` clean backgrounds, and a text-image score
   not below the base model's.
2. Of those, only checkpoints whose Fréchet distance is below the base model's.
3. The best is the one with the lowest distance; tied are those whose paired difference to it may be 0 (95 % interval).
4. The earliest of the tied is recommended: it is as good, and least trained.
Claims against base (1 and 2) are corrected by Holm over all checkpoints. Where nothing passes there is no clear winner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from loupe.metrics.bootstrap import draws_needed, holm_adjusted, percentile_interval, sign_p_value
from loupe.metrics.image_set import Array
from loupe.records import Selection

LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class StepEvidence:
    """What is known of one checkpoint (or of the base model); a score that could not be computed is None."""

    step: int
    n_used: int
    invalid_count: int
    background_ok: float | None
    distance: float | None
    """Of the ranking metric, lower is better."""
    text_score: float | None
    distance_draws: Array
    """Bootstrap draws [R], the same resamples for every checkpoint; empty when there are none."""
    distance_gain: Array
    """Draws of the paired difference to base of `distance`."""
    text_gain: Array


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the checkpoints stand to base and to each other."""

    verdict: Literal["selected", "no clear winner"]
    chosen: StepEvidence
    best: StepEvidence | None
    """Lowest distance among the eligible; None when nothing is eligible or ranked."""
    tied: tuple[int, ...]
    gates_failed: dict[int, str]
    distance_p: dict[int, float]
    """Step -> Holm-adjusted p-value of its distance being equal to base's."""
    text_p: dict[int, float]
    draws_short_of: int | None
    """Draws that a claim would need after correction, when there are fewer."""


def compare_checkpoints(
    checkpoints: Sequence[StepEvidence], *, text_key: str, min_background_ok: float, max_invalid: int
) -> Comparison:
    """Apply the rule to the checkpoints (without base), ascending by step."""
    distance_p = holm_adjusted({c.step: sign_p_value(c.distance_gain) for c in checkpoints if len(c.distance_gain)})
    text_p = holm_adjusted({c.step: sign_p_value(c.text_gain) for c in checkpoints if len(c.text_gain)})
    failed = {}
    for checkpoint in checkpoints:
        gates = _gates_failed(checkpoint, text_p.get(checkpoint.step), text_key, min_background_ok, max_invalid)
        if gates:
            failed[checkpoint.step] = "; ".join(gates)
    ranked = [c for c in checkpoints if c.distance is not None]
    eligible = [c for c in ranked if c.step not in failed]
    better = [c for c in eligible if _is_lower(c.distance_gain, distance_p.get(c.step))]
    pool = better or eligible
    best = min(pool, key=_distance) if pool else None
    tied = [c for c in pool if best is not None and _may_be_equal(c, best)]
    fallback = min(ranked, key=_distance) if ranked else checkpoints[-1]
    n_draws = max((len(c.distance_gain) for c in checkpoints), default=0)
    needed = draws_needed(len(distance_p), LEVEL) if distance_p else 0
    return Comparison(
        verdict="selected" if better else "no clear winner",
        chosen=tied[0] if tied else fallback,
        best=best,
        tied=tuple(c.step for c in tied),
        gates_failed=failed,
        distance_p=distance_p,
        text_p=text_p,
        draws_short_of=needed if n_draws < needed else None,
    )


def selection_record(comparison: Comparison, reason: str, names: Mapping[int, str]) -> Selection:
    """Return what goes into metrics/selection.json."""
    return Selection(
        verdict=comparison.verdict,
        step=comparison.chosen.step,
        reason=reason,
        gates_failed={names[step]: gates for step, gates in comparison.gates_failed.items()},
        tied_steps=comparison.tied,
    )


def _gates_failed(
    checkpoint: StepEvidence, text_p: float | None, text_key: str, min_background_ok: float, max_invalid: int
) -> list[str]:
    gates = []
    if checkpoint.invalid_count > max_invalid:
        gates.append(f"{checkpoint.invalid_count} invalid pictures, allowed {max_invalid}")
    if checkpoint.background_ok is None:
        gates.append("no background_ok: no valid picture")
    elif checkpoint.background_ok < min_background_ok:
        gates.append(f"background_ok {checkpoint.background_ok:.3g}, required {min_background_ok:g}")
    if _is_lower(checkpoint.text_gain, text_p):
        gates.append(f"{text_key} below the base model's")
    return gates


def _is_lower(gain: Array, adjusted_p: float | None) -> bool:
    """Whether a difference to base is below 0 beyond chance."""
    if adjusted_p is None or adjusted_p >= LEVEL:
        return False
    return bool((gain < 0).sum() > (gain > 0).sum())


def _may_be_equal(checkpoint: StepEvidence, best: StepEvidence) -> bool:
    if checkpoint is best:
        return True
    if not len(checkpoint.distance_draws) or not len(best.distance_draws):
        return False
    interval = percentile_interval(checkpoint.distance_draws - best.distance_draws)
    return interval is not None and interval.contains(0)


def _distance(checkpoint: StepEvidence) -> float:
    if checkpoint.distance is None:
        raise ValueError(f"step {checkpoint.step} has no distance to rank by")
    return checkpoint.distance
