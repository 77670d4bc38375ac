"""What the votes on a run's pictures say, for the Vote page and the report. It reads only.

Only votes on pictures that are still the run's own count: a vote names both pictures by SHA-256.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loupe.records import BASE_STEP
from loupe.run_scores import MetricColumn
from loupe.run_store import RunStore
from loupe.vote_statistics import (
    Share,
    Strengths,
    answers_by_question,
    krippendorff_alpha,
    metric_agreement,
    repeat_consistency,
    share,
    strengths,
)
from loupe.votes import Vote

_SEED = 20_260
"""Of the resampling, so that the same votes always give the same intervals."""


@dataclass(frozen=True, slots=True)
class ReviewerChecks:
    """How carefully one reviewer, or all together, answered."""

    reviewer: str
    n_answers: int
    n_ties: int
    """Of pairs of different checkpoints."""
    same: tuple[int, int]
    """(called a tie, asked) of the pictures shown against themselves."""
    repeats: tuple[int, int]
    """(same answer, asked) of the pairs that were asked again."""
    left: tuple[int, int]
    """(left, decided): far from half and half, the side and not the picture was chosen."""


@dataclass(frozen=True, slots=True)
class VoteResults:
    """All that the votes say."""

    votes: tuple[Vote, ...]
    """Those that count."""
    n_other: int
    """Votes on pictures that are no longer this run's."""
    strengths: Strengths
    alpha: float | None
    """Krippendorff's alpha between reviewers; None where fewer than two answered the same question."""
    n_shared: int
    """Questions that more than one reviewer answered."""
    checks: tuple[ReviewerChecks, ...]
    """A line per reviewer, by name."""
    metrics: tuple[tuple[MetricColumn, Share | None], ...]
    """For each metric how often it is on the side of the people; None without a decided vote it has values for."""


def vote_results(store: RunStore, votes: Sequence[Vote]) -> VoteResults:
    """Judge the votes on the pictures of this run."""
    counted = tuple(vote for vote in votes if vote.choice != "skip" and _is_of_this_run(store, vote))
    questions = answers_by_question(counted)
    answers = [tuple(by_reviewer.values()) for by_reviewer in questions.values()]
    return VoteResults(
        votes=counted,
        n_other=sum(vote.choice != "skip" for vote in votes) - len(counted),
        strengths=strengths(counted, reference=BASE_STEP, rng=np.random.default_rng(_SEED)),
        alpha=krippendorff_alpha(answers),
        n_shared=sum(len(unit) > 1 for unit in answers),
        checks=tuple(_checks(name, counted) for name in sorted({vote.reviewer for vote in counted})),
        metrics=tuple(
            (column, metric_agreement(counted, _goodness(store, column), rng=np.random.default_rng(_SEED)))
            for column in store.metrics()
        ),
    )


def decided_share(results: VoteResults, step: int) -> Share | None:
    """Return how often `step` was preferred where it met another checkpoint; a tie counts as half."""
    hits, clusters = [], []
    for vote in results.votes:
        if vote.kind == "pair" and step in (vote.step_left, vote.step_right):
            side = "left" if vote.step_left == step else "right"
            hits.append(0.5 if vote.choice == "tie" else float(vote.choice == side))
            clusters.append(vote.prompt_id)
    return share(hits, clusters, rng=np.random.default_rng(_SEED))


def _is_of_this_run(store: RunStore, vote: Vote) -> bool:
    hashes = _hashes(store)
    left, right = (vote.prompt_id, vote.seed_index, vote.step_left), (vote.prompt_id, vote.seed_index, vote.step_right)
    return hashes.get(left) == vote.sha256_left and hashes.get(right) == vote.sha256_right


def _hashes(store: RunStore) -> dict[tuple[str, int, int], str | None]:
    def read() -> dict[tuple[str, int, int], str | None]:
        manifest = store.samples_manifest()
        return {(s.prompt_id, s.seed_index, s.step): s.sha256 for s in manifest.samples} if manifest else {}

    return store.files.parsed(store.paths.samples / "manifest.json", "hashes by cell", read) or {}


def _checks(reviewer: str, votes: Sequence[Vote]) -> ReviewerChecks:
    own = [vote for vote in votes if vote.reviewer == reviewer]
    pairs = [vote for vote in own if vote.kind == "pair"]
    same = [vote for vote in own if vote.kind == "same"]
    decided = [vote for vote in own if vote.choice in ("left", "right")]
    return ReviewerChecks(
        reviewer=reviewer,
        n_answers=len(own),
        n_ties=sum(vote.choice == "tie" for vote in pairs),
        same=(sum(vote.choice == "tie" for vote in same), len(same)),
        repeats=repeat_consistency(own),
        left=(sum(vote.choice == "left" for vote in decided), len(decided)),
    )


def _goodness(store: RunStore, column: MetricColumn) -> Callable[[Vote, str], float | None]:
    spec, per_image = column.spec, store.per_image()
    by_step = {row.step: row.scores[spec.key].value for row in store.scores() if spec.key in row.scores}

    def value(vote: Vote, side: str) -> float | None:
        step = vote.step_left if side == "left" else vote.step_right
        if spec.image_column is None:
            return by_step.get(step)
        found = per_image.get((vote.prompt_id, vote.seed_index, step), {}).get(spec.image_column)
        return found if isinstance(found, float) else None

    def goodness(vote: Vote, side: str) -> float | None:
        found = value(vote, side)
        if found is None or (spec.better == "closer to real" and column.aim is None):
            return None
        if spec.better == "closer to real":
            return -abs(found - (column.aim or 0.0))
        return {"higher": found, "lower": -found, "zero": -abs(found)}[spec.better]

    return goodness
