"""The first screen of the vote: what to do, which keys, how much there is, who has voted. It shows no picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from loupe.vote_plan import VotePlan
from loupe.votes import Vote

SECONDS_PER_QUESTION = 4
"""A guess at a reviewer's pace, for the time that a vote takes."""


def welcome(plan: VotePlan, votes: Sequence[Vote], *, n_checkpoints: int) -> str:
    """Return what stands above the field for the name; `n_checkpoints` counts the base model in."""
    minutes = max(1, round(len(plan.questions) * SECONDS_PER_QUESTION / 60))
    return (
        '<header class="lp-headline"><h1>Which picture is better?</h1>'
        "<p>You see two pictures of the same prompt and the same seed, from two checkpoints. Which is which stays "
        "hidden, and sides are drawn by lot. Choose the one that you would rather ship.</p></header>"
        '<div class="lp-how" aria-hidden="true"><figure><i></i><figcaption><kbd>1</kbd> left is better</figcaption>'
        "</figure><p><kbd>0</kbd> no difference</p>"
        "<figure><i></i><figcaption><kbd>2</kbd> right is better</figcaption></figure></div>"
        f'<ul class="lp-points"><li><b>{len(plan.questions)} questions</b> about {n_checkpoints} checkpoints, about '
        f"{minutes} minutes for all. Answer as many as you like.</li>"
        "<li>Every answer is kept at once. Come back under the same name to go on where you stopped.</li>"
        "<li>Some pairs come twice, and some are one picture twice: that tells how sure an answer is.</li></ul>"
        f"{_so_far(plan, votes)}"
    )


def _so_far(plan: VotePlan, votes: Sequence[Vote]) -> str:
    counts = Counter(vote.reviewer for vote in votes if vote.plan == plan.key)
    if not counts:
        return '<p class="lp-note">Nobody has voted on these pictures yet.</p>'
    named = ", ".join(f"{escape(name)} {count}" for name, count in sorted(counts.items()))
    return f'<p class="lp-note">Answered so far: {named}.</p>'
