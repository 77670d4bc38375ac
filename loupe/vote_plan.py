"""Which questions a blind vote asks, in which order, and which picture stands left. It asks nobody and stores nothing.

All reviewers of a plan get the same questions in the same order, so that they can be compared; sides differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, zip_longest

import numpy as np

from loupe.records import SampleRecord, SamplesManifest
from loupe.votes import Kind
from loupe.workstore import fingerprint

CHECK_EVERY = 8
"""After this many pairs comes one check: in turn a picture against itself, and a pair asked before."""
MAX_QUESTIONS = 600


@dataclass(frozen=True, slots=True)
class Question:
    """Two pictures of one prompt and seed; `one` and `other` are in the order of the steps, not of the sides."""

    position: int
    kind: Kind
    one: SampleRecord
    other: SampleRecord


@dataclass(frozen=True, slots=True)
class VotePlan:
    """A list of questions under the fingerprint of what decided it."""

    key: str
    questions: tuple[Question, ...]


def vote_plan(manifest: SamplesManifest, steps: Sequence[int]) -> VotePlan:
    """Return the questions about these steps: rounds in which every pair of steps comes once, in a random order.

    Each time with another prompt and seed, until all are used or MAX_QUESTIONS is reached. Pictures that are not there
    are left out; fewer than two steps give no question.
    """
    rows: dict[tuple[str, int], dict[int, SampleRecord]] = {}
    for sample in manifest.samples:
        if sample.step in steps and sample.sha256 is not None:
            rows.setdefault((sample.prompt_id, sample.seed_index), {})[sample.step] = sample
    pictures = {f"{prompt}-{seed}": {str(s): r.sha256 for s, r in row.items()} for (prompt, seed), row in rows.items()}
    key = fingerprint({"questions": 1, "pictures": pictures, "check_every": CHECK_EVERY})
    rng = np.random.default_rng(int(key[:16], 16))
    return VotePlan(key, tuple(_with_checks(_pairs(list(rows.values()), sorted(steps), rng), rng)))


def left_is_other(plan: VotePlan, question: Question, reviewer: str) -> bool:
    """Return which picture stands left for this reviewer: a fair draw that is the same each time it is asked."""
    drawn = hashlib.sha256(f"{plan.key}/{reviewer}/{question.position}".encode()).digest()
    return bool(drawn[0] & 1)


def _pairs(
    rows: list[dict[int, SampleRecord]], steps: Sequence[int], rng: np.random.Generator
) -> list[tuple[SampleRecord, SampleRecord]]:
    by_pair = []
    for one, other in combinations(steps, 2):
        both = [(row[one], row[other]) for row in rows if one in row and other in row]
        by_pair.append([both[place] for place in rng.permutation(len(both))])
    chosen: list[tuple[SampleRecord, SampleRecord]] = []
    for round_ in zip_longest(*by_pair):
        if len(chosen) >= MAX_QUESTIONS:
            break
        present = [pair for pair in round_ if pair is not None]
        chosen += [present[place] for place in rng.permutation(len(present))]
    return chosen[:MAX_QUESTIONS]


def _with_checks(pairs: list[tuple[SampleRecord, SampleRecord]], rng: np.random.Generator) -> list[Question]:
    questions: list[Question] = []

    def ask(kind: Kind, one: SampleRecord, other: SampleRecord) -> None:
        questions.append(Question(len(questions), kind, one, other))

    for place, (one, other) in enumerate(pairs, start=1):
        ask("pair", one, other)
        if place % (2 * CHECK_EVERY) == CHECK_EVERY:
            same = (one, other)[int(rng.integers(2))]
            ask("same", same, same)
        elif place % (2 * CHECK_EVERY) == 0:
            ask("repeat", *pairs[place - CHECK_EVERY - 1 - int(rng.integers(CHECK_EVERY))])
    return questions
