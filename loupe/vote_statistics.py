"""What votes say: strengths of the checkpoints, how far reviewers agree, and whether metrics agree with people.

Pure functions of arrays and lists; intervals resample by prompt, as everywhere in Loupe. Nothing here is ever infinite:
where one side won every time, half a win is added to both sides of each pair, and the result says so.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from loupe.votes import Vote

Floats = NDArray[np.float64]
DRAWS = 500
_ITERATIONS = 2000
_TOLERANCE = 1e-11


@dataclass(frozen=True, slots=True)
class Strength:
    """How strong a checkpoint is: the log of its odds to be preferred over the reference, which has 0."""

    step: int
    log_odds: float
    lo: float | None
    """95 % interval, resampled by prompt; None for the reference and with votes on fewer than two prompts."""
    hi: float | None
    wins: float
    """A tie counts as half a win for each side."""
    n: int


@dataclass(frozen=True, slots=True)
class Strengths:
    """The strengths of all checkpoints that votes connect with the reference, strongest first."""

    rows: tuple[Strength, ...]
    corrected: bool
    """Whether half wins were added because some checkpoint won, or lost, every time."""
    unconnected: tuple[int, ...]
    """Checkpoints in votes that no chain of votes connects with the reference."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its count and its 95 % interval, resampled by prompt."""

    value: float
    lo: float | None
    hi: float | None
    n: int


def bradley_terry(wins: Floats) -> Floats:
    """Return log strengths [..., K] of win counts [..., K, K] (row beat column), centred on their mean.

    Maximum likelihood (Bradley and Terry 1952) by the MM iteration of Hunter 2004, eq. 3; for two, the log of the odds
    w12 / w21 lies between them. The wins must connect every two players in both directions (`is_connected`).
    """
    games = wins + np.swapaxes(wins, -1, -2)
    won = wins.sum(-1)
    logs = np.zeros(won.shape)
    for _ in range(_ITERATIONS):
        strength = np.exp(logs)
        weight = (games / (strength[..., :, None] + strength[..., None, :])).sum(-1)
        update = np.log(won) - np.log(weight)
        update -= update.mean(-1, keepdims=True)
        moved = float(np.abs(update - logs).max())
        logs = update
        if moved < _TOLERANCE:
            break
    return logs


def is_connected(wins: Floats) -> bool:
    """Return whether a chain of wins leads from every player to every other (Ford 1957): then strengths are finite."""
    return bool(_reached(wins > 0)[0].all() and _reached(wins.T > 0)[0].all())


def strengths(votes: Iterable[Vote], *, reference: int, rng: np.random.Generator, draws: int = DRAWS) -> Strengths:
    """Return each step's Bradley-Terry strength against the `reference` step; skipped and A/A questions do not count.

    Half wins are added within a resample, too, where it needs them.
    """
    counted = [vote for vote in votes if vote.kind == "pair" and vote.choice != "skip"]
    steps = sorted({step for vote in counted for step in (vote.step_left, vote.step_right)})
    if reference not in steps:
        return Strengths((), corrected=False, unconnected=tuple(steps))
    place = {step: number for number, step in enumerate(steps)}
    by_prompt = _wins_by_prompt(counted, place)
    total = by_prompt.sum(0)
    kept = np.flatnonzero(_reached((total + total.T) > 0)[place[reference]])
    total, by_prompt = total[np.ix_(kept, kept)], by_prompt[:, kept][:, :, kept]
    home = int(np.searchsorted(kept, place[reference]))
    logs = bradley_terry(_finite(total))
    lo, hi = _intervals(by_prompt, home, rng, draws)
    rows = [
        Strength(
            step=steps[number], log_odds=float(logs[i] - logs[home]),
            lo=None if lo is None or i == home else float(lo[i]), hi=None if hi is None or i == home else float(hi[i]),
            wins=float(total[i].sum()), n=int(total[i].sum() + total[:, i].sum()),
        )
        for i, number in enumerate(kept)
    ]  # fmt: skip
    outside = tuple(step for step in steps if place[step] not in kept)
    return Strengths(tuple(sorted(rows, key=lambda row: -row.log_odds)), not is_connected(total), outside)


def krippendorff_alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Return the agreement of any number of reviewers on a nominal scale: 1 is perfect, 0 is chance.

    Each unit holds the answers that one question got; one with a single answer says nothing. None without two answers
    to a question, or when all answers are the same value, where chance agreement is perfect too. Krippendorff 2011.
    """
    pairable = [list(unit) for unit in units if len(unit) > 1]
    values = [value for unit in pairable for value in unit]
    counts = {value: values.count(value) for value in set(values)}
    n = len(values)
    expected = n * n - sum(count * count for count in counts.values())
    if not values or expected == 0:
        return None
    observed = sum(
        sum(2 * (one != other) for one, other in combinations(unit, 2)) / (len(unit) - 1) for unit in pairable
    )
    return float(1 - (n - 1) * observed / expected)


def share(
    hits: Sequence[float], clusters: Sequence[Hashable], *, rng: np.random.Generator, draws: int = DRAWS
) -> Share | None:
    """Return the mean of `hits` in [0, 1] with its interval over resampled clusters; None without hits."""
    if not hits:
        return None
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for hit, cluster in zip(hits, clusters, strict=True):
        sums[names[cluster]] += hit
        counts[names[cluster]] += 1
    value = float(sums.sum() / counts.sum())
    if len(names) < 2:
        return Share(value, None, None, len(hits))
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    drawn = (weights @ sums) / (weights @ counts)
    lo, hi = np.quantile(drawn, (0.025, 0.975))
    return Share(value, float(lo), float(hi), len(hits))


def metric_agreement(
    votes: Iterable[Vote], goodness: Callable[[Vote, str], float | None], *, rng: np.random.Generator
) -> Share | None:
    """Return how often the picture that people preferred is also the better one by a metric; 0.5 is chance.

    `goodness(vote, side)` is the metric's value of the 'left' or 'right' picture, turned so that more is better, or
    None. Ties of people do not count; a tie of the metric counts as half.
    """
    hits, clusters = [], []
    for vote in votes:
        if vote.kind != "pair" or vote.choice not in ("left", "right"):
            continue
        left, right = goodness(vote, "left"), goodness(vote, "right")
        if left is None or right is None:
            continue
        preferred = left - right if vote.choice == "left" else right - left
        hits.append(0.5 if preferred == 0 else float(preferred > 0))
        clusters.append(vote.prompt_id)
    return share(hits, clusters, rng=rng)


def preferred_step(vote: Vote) -> int | None:
    """Return the step that was preferred, None for a tie."""
    return {"left": vote.step_left, "right": vote.step_right}.get(vote.choice)


def answers_by_question(votes: Iterable[Vote]) -> dict[tuple[str, int], dict[str, int | None]]:
    """Return (plan, position) -> reviewer -> preferred step, of pairs that were answered."""
    found: dict[tuple[str, int], dict[str, int | None]] = {}
    for vote in votes:
        if vote.kind == "pair" and vote.choice != "skip":
            found.setdefault((vote.plan, vote.position), {})[vote.reviewer] = preferred_step(vote)
    return found


def repeat_consistency(votes: Sequence[Vote]) -> tuple[int, int]:
    """Return (same answer, all) over the questions that the same reviewer was asked twice."""
    first: Mapping[tuple, int | None] = {
        (v.reviewer, v.plan, *_pictures(v)): preferred_step(v) for v in votes if v.kind == "pair" and v.choice != "skip"
    }
    again = [vote for vote in votes if vote.kind == "repeat" and vote.choice != "skip"]
    keys = [(v.reviewer, v.plan, *_pictures(v)) for v in again]
    same = [preferred_step(v) == first[key] for v, key in zip(again, keys, strict=True) if key in first]
    return sum(same), len(same)


def _pictures(vote: Vote) -> tuple[str, str]:
    one, other = sorted((vote.sha256_left, vote.sha256_right))
    return one, other


def _wins_by_prompt(votes: Sequence[Vote], place: Mapping[int, int]) -> Floats:
    prompts = {name: number for number, name in enumerate(dict.fromkeys(vote.prompt_id for vote in votes))}
    wins = np.zeros((len(prompts), len(place), len(place)))
    for vote in votes:
        left, right, prompt = place[vote.step_left], place[vote.step_right], prompts[vote.prompt_id]
        points = {"left": 1.0, "right": 0.0, "tie": 0.5}[vote.choice]
        wins[prompt, left, right] += points
        wins[prompt, right, left] += 1 - points
    return wins


def _finite(wins: Floats) -> Floats:
    """Return the wins, with half a win for both sides of every pair that met where strengths would be infinite."""
    return wins if is_connected(wins) else wins + 0.5 * ((wins + wins.T) > 0)


def _intervals(
    by_prompt: Floats, home: int, rng: np.random.Generator, draws: int
) -> tuple[Floats | None, Floats | None]:
    n_prompts, n_steps = by_prompt.shape[:2]
    if n_prompts < 2 or n_steps < 2:
        return None, None
    weights = rng.multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), size=draws)
    drawn = np.tensordot(weights.astype(float), by_prompt, axes=1)
    # A resample in which a pair that did meet is gone keeps a trace of it, so that it still connects the steps.
    met = (by_prompt.sum(0) + by_prompt.sum(0).T) > 0
    drawn = np.stack([wins if is_connected(wins) else wins + 0.5 * met for wins in drawn])
    logs = bradley_terry(drawn)
    return tuple(np.quantile(logs - logs[:, home : home + 1], (0.025, 0.975), axis=0))


def _reached(edges: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return [K, K]: whether a walk along `edges` leads from row to column; every player reaches itself."""
    reached = edges | np.eye(len(edges), dtype=bool)
    for _ in range(len(edges)):
        reached = (reached.astype(np.int64) @ reached.astype(np.int64)) > 0
    return reached
