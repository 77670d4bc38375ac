"""Votes for tests: only what matters is named."""

from __future__ import annotations

from loupe.votes import Choice, Kind, Vote


def vote(
    left: int, right: int, choice: Choice, *, prompt: str = "red", reviewer: str = "Ann", position: int = 0,
    kind: Kind = "pair", plan: str = "p",
) -> Vote:  # fmt: skip
    return Vote(
        plan=plan, position=position, reviewer=reviewer, kind=kind, prompt_id=prompt, seed_index=0, step_left=left,
        step_right=right, sha256_left=f"{prompt}-{left}", sha256_right=f"{prompt}-{right}", choice=choice,
        voted_at="2026-01-01T00:00:00+00:00", elapsed_s=1.5,
    )  # fmt: skip
