"""What votes say, as tables that stand in any page: the review's and the report's. It computes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from loupe.records import BASE_STEP
from loupe.run_scores import MetricColumn
from loupe.vote_results import VoteResults, decided_share
from loupe.vote_statistics import Share, Strengths
from loupe.wording import direction, step_label

STRENGTH_NOTE = (
    "Bradley-Terry strengths: how much more often a checkpoint is preferred than the base model, on the logarithm of "
    "the odds (0: as often; 1.1: three times as often). A tie is half a win for each. Bars: 95 % interval, resampled "
    "by prompt."
)


def strength_note(strengths: Strengths) -> str:
    """Return what the strengths are, and what was done where they could not be computed."""
    notes = [STRENGTH_NOTE]
    if strengths.corrected:
        notes.append(
            "One side won every time between some checkpoints; half a win was added to both sides of each pair, or the "
            "strengths would be infinite."
        )
    if strengths.unconnected:
        names = ", ".join(step_label(step).lower() for step in strengths.unconnected)
        notes.append(f"No chain of votes connects {names} with the base model, so nothing is said of it.")
    return " ".join(notes)


def strength_table(results: VoteResults) -> str:
    """Return a line per checkpoint, strongest first."""
    lines = []
    for row in results.strengths.rows:
        preferred = decided_share(results, row.step)
        around = "" if row.lo is None or row.hi is None else f"<small>{_log(row.lo)} to {_log(row.hi)}</small>"
        strength = "0<small>reference</small>" if row.step == BASE_STEP else f"<b>{_log(row.log_odds)}</b>{around}"
        lines.append((step_label(row.step), strength, _share(preferred), f"{row.n:g}"))
    return vote_table(("Checkpoint", "Strength", "Preferred", "Votes"), lines)


def agreement_table(metrics: Iterable[tuple[MetricColumn, Share | None]]) -> str:
    """Return a line per metric."""
    lines = [
        (
            f"{escape(column.spec.label)}<small>{direction(column.spec)}</small>",
            _share(found),
            "–" if found is None else str(found.n),
            "" if found is None else _verdict(found),
        )
        for column, found in metrics
    ]
    return vote_table(("Metric", "Agrees with people", "Decided votes", ""), lines)


def vote_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already; the first of each line names it."""
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{line[0]}</th>{"".join(f"<td>{cell}</td>" for cell in line[1:])}</tr>' for line in lines
    )
    return (
        f'<div class="lp-scroll"><table class="lp-scores final"><thead><tr>{columns}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _verdict(found: Share) -> str:
    if found.lo is None or found.hi is None:
        return "too few prompts"
    if found.lo > 0.5:
        return "agrees"
    return "disagrees" if found.hi < 0.5 else "not told from chance"


def _share(found: Share | None) -> str:
    if found is None:
        return "–"
    around = "" if found.lo is None or found.hi is None else f"<small>{found.lo:.0%} to {found.hi:.0%}</small>"
    return f"<b>{found.value:.0%}</b>{around}".replace("%", " %")


def _log(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
