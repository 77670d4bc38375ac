"""Which checkpoint to recommend, or that there is no clear winner; a fixed rule over scores and bootstrap draws.

1. Gates: invalid pictures, white background, centring, memorised pictures, and a text-image score that has not clearly
   lost more against the base's than it may (a LoRA is expected to lose a little, so a clear loss alone is no failure).
2. Of those, the checkpoints whose merit is above the base model's. Merit is the weighted sum of the gains over base in
   distance, text-image gap, colour and diversity, each in units of the bootstrap deviation of such gains.
3. Of those, the Pareto front: no other is at least as good in every criterion and clearly better in one.
4. The best has the highest merit; tied are those of the front that are not clearly below it.
5. The earliest of the tied is recommended: it is as good, and least trained.
Every claim is paired and corrected by Holm: against base (1 and 2) over all checkpoints, against a checkpoint (3) and
against the best (4) over all its rivals. Uncorrected, one of six equal checkpoints would be called worse than the best
in a third of all runs, because the best of equals looks better than it is; the correction halves that.
Where nothing is above base there is no clear winner; what is named then failed the fewest gates and, of those, is
nearest to passing them; where that is equal too, it has the highest merit. Weights and gates come from params.yaml,
i.e. from before the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loupe.metrics.bootstrap import Interval, draws_needed, holm_adjusted, percentile_interval, sign_p_value
from loupe.metrics.image_set import Array
from loupe.metrics.selection_evidence import Gates, StepEvidence, failed_gates, shortfall

LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Merit:
    """A checkpoint's gains over base, summed; `draws` are empty where there are no bootstrap draws."""

    value: float
    draws: Array


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the checkpoints stand to base and to each other."""

    verdict: Literal["selected", "no clear winner"]
    chosen: StepEvidence
    best: StepEvidence | None
    """Highest merit on the front; None when nothing passes the gates or nothing can be compared."""
    front: tuple[int, ...]
    tied: tuple[int, ...]
    gates_failed: dict[int, str]
    criteria: dict[str, str]
    """Criterion -> metric key, of those that every checkpoint with pictures has a gain in and whose weight is not 0."""
    merits: dict[int, Merit]
    merit_p: dict[int, float]
    """Step -> Holm-adjusted p-value of its merit being base's."""
    best_p: dict[int, float]
    """Step -> Holm-adjusted p-value of its merit being the best one's, of the best one's rivals."""
    draws_short_of: int | None
    """Draws that a claim would need after correction, when there are fewer."""

    def to_best(self, step: int) -> tuple[float, Interval | None]:
        """Return the step's merit minus the best one's, and its paired interval."""
        if self.best is None:
            raise ValueError("there is no best checkpoint to compare with")
        a, b = self.merits[step], self.merits[self.best.step]
        return a.value - b.value, percentile_interval(a.draws - b.draws)

    def is_behind(self, step: int) -> bool:
        """Whether a rival's merit is below the best one's beyond chance."""
        return self.best is not None and _is_behind(
            self.merits[step], self.merits[self.best.step], self.best_p.get(step)
        )


def compare_checkpoints(
    checkpoints: Sequence[StepEvidence], *, keys: Mapping[str, str], weights: Mapping[str, float], gates: Gates
) -> Comparison:
    """Apply the rule to the checkpoints (without base), ascending by step; `keys` is criterion -> metric key."""
    failed = gates_failed(checkpoints, gates)
    criteria = _usable(checkpoints, keys, weights)
    merits = _merits(checkpoints, {name: weights[name] for name in criteria})
    merit_p = holm_adjusted({step: sign_p_value(m.draws) for step, m in merits.items() if len(m.draws)})
    eligible = [c for c in checkpoints if c.step in merits and c.step not in failed]
    better = [c for c in eligible if _is_clear(merits[c.step].draws, merit_p.get(c.step))]
    rivals = better or eligible
    front = pareto_front(rivals, criteria)
    best = max(front, key=lambda c: merits[c.step].value) if front else None
    best_p = {} if best is None else _p_to_best(rivals, merits, best.step)
    tied = [c for c in front if best and not _is_behind(merits[c.step], merits[best.step], best_p.get(c.step))]
    fallback = max(
        (c for c in checkpoints if c.step in merits),
        key=lambda c: (-len(failed.get(c.step, ())), -shortfall(c, gates), merits[c.step].value),
        default=None,
    )
    n_draws = max((len(m.draws) for m in merits.values()), default=0)
    needed = draws_needed(len(merit_p), LEVEL) if merit_p else 0
    return Comparison(
        verdict="selected" if better else "no clear winner",
        chosen=tied[0] if tied else fallback or checkpoints[-1],
        best=best,
        front=tuple(c.step for c in front),
        tied=tuple(c.step for c in tied),
        gates_failed={step: "; ".join(reasons) for step, reasons in failed.items()},
        criteria={name: keys[name] for name in criteria},
        merits=merits,
        merit_p=merit_p,
        best_p=best_p,
        draws_short_of=needed if n_draws < needed else None,
    )


def gates_failed(checkpoints: Sequence[StepEvidence], gates: Gates) -> dict[int, list[str]]:
    """Return step -> what it fails, each with what was found and what is required; none for one that passes."""
    losers = _text_losers(checkpoints, gates.max_text_loss)
    failed = {c.step: failed_gates(c, gates, loses_text=c.step in losers) for c in checkpoints}
    return {step: reasons for step, reasons in failed.items() if reasons}


def _text_losers(checkpoints: Sequence[StepEvidence], allowed: float | None) -> set[int]:
    """Return the steps that lost more than `allowed` of the text-image score, beyond chance after Holm's correction."""
    if allowed is None:
        return set()
    gains = {c.step: c.text_gain.draws for c in checkpoints if c.text_gain is not None and len(c.text_gain.draws)}
    too_much = {step: -(draws + allowed) for step, draws in gains.items()}
    p_values = holm_adjusted({step: sign_p_value(draws) for step, draws in too_much.items()})
    return {step for step, draws in too_much.items() if _is_clear(draws, p_values[step])}


def pareto_front(checkpoints: Sequence[StepEvidence], criteria: Sequence[str]) -> list[StepEvidence]:
    """Return the checkpoints that no rival equals or beats in every criterion while being clearly better in one.

    Clear is a difference beyond chance after Holm's correction over the rivals; having to lead in every criterion makes
    up for looking at several. Without bootstrap draws every difference counts.
    """

    def beaten(own: StepEvidence) -> bool:
        rivals = [c for c in checkpoints if c is not own]
        p = holm_adjusted({r.step: min((_lead_p(r, own, name) for name in criteria), default=1.0) for r in rivals})
        return any(p[rival.step] < LEVEL and _leads(rival, own, criteria) for rival in rivals)

    return [c for c in checkpoints if not beaten(c)]


def _leads(rival: StepEvidence, own: StepEvidence, criteria: Sequence[str]) -> bool:
    return all(rival.gains[name].value >= own.gains[name].value for name in criteria)


def _lead_p(rival: StepEvidence, own: StepEvidence, name: str) -> float:
    """Return the p-value of a rival's lead in one criterion; 1 where it has none."""
    a, b = rival.gains[name], own.gains[name]
    if a.value <= b.value:
        return 1.0
    return sign_p_value(a.draws - b.draws) if len(a.draws) and len(b.draws) else 0.0


def _p_to_best(rivals: Sequence[StepEvidence], merits: Mapping[int, Merit], best: int) -> dict[int, float]:
    """Return rival -> Holm-adjusted p-value of its merit being the best one's; none where there are no draws."""
    differences = {c.step: merits[c.step].draws - merits[best].draws for c in rivals if c.step != best}
    return holm_adjusted({step: sign_p_value(draws) for step, draws in differences.items() if len(draws)})


def _is_behind(merit: Merit, best: Merit, adjusted_p: float | None) -> bool:
    """Whether a merit is below the best one beyond chance; without draws every difference counts."""
    return merit.value < best.value and (adjusted_p is None or adjusted_p < LEVEL)


def _usable(checkpoints: Sequence[StepEvidence], keys: Mapping[str, str], weights: Mapping[str, float]) -> list[str]:
    """Return the criteria that count and that every checkpoint with pictures has."""
    drawn = [c for c in checkpoints if c.n_used]
    return [name for name in keys if weights[name] > 0 and drawn and all(name in c.gains for c in drawn)]


def _merits(checkpoints: Sequence[StepEvidence], weights: Mapping[str, float]) -> dict[int, Merit]:
    """Return step -> merit; none where there is no criterion."""
    scored = [c for c in checkpoints if weights and all(name in c.gains for name in weights)]
    units = {name: _unit([c.gains[name].draws for c in scored]) for name in weights}
    scales = {name: weight / units[name] if units[name] > 0 else 0.0 for name, weight in weights.items()}
    return {
        c.step: Merit(
            value=sum(scale * c.gains[name].value for name, scale in scales.items()),
            draws=np.sum([scale * c.gains[name].draws for name, scale in scales.items()], axis=0),
        )
        for c in scored
    }


def _unit(draws: Sequence[Array]) -> float:
    """Return the root mean variance of the gains' draws; 1 without draws, where nothing can be claimed anyway.

    0, and with it no weight, where no checkpoint ever differs from base.
    """
    finite = [d[np.isfinite(d)] for d in draws]
    if not all(len(d) for d in finite):
        return 1.0
    return float(np.sqrt(np.mean([np.var(d) for d in finite])))


def _is_clear(gain: Array, adjusted_p: float | None) -> bool:
    """Whether a gain is above 0 beyond chance."""
    if adjusted_p is None or adjusted_p >= LEVEL:
        return False
    return bool((gain > 0).sum() > (gain < 0).sum())
