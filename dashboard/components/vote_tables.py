"""What the votes say, as tables and two charts. It computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import altair as alt
import streamlit as st

from dashboard.components.curves import NULL, SCORE
from dashboard.components.markup import facts, headline
from loupe.evaluation_records import Selection
from loupe.vote_html import agreement_table, strength_note, strength_table, vote_table
from loupe.vote_results import ReviewerChecks, VoteResults
from loupe.vote_statistics import Strengths
from loupe.wording import step_label

AGREEMENT_NOTE = (
    "Of all decided votes, how often the picture that people preferred is also the better one by the metric. 50 % is "
    "chance. Metrics of a whole checkpoint are judged by the checkpoint's value. 95 % interval, resampled by prompt."
)
CHECK_NOTE = (
    "Among the questions are pictures against themselves, where only “no difference” is right, and pairs that were "
    "asked before. Left far from 50 % means that the side was chosen, not the picture."
)


def show_results(results: VoteResults, selection: Selection | None) -> None:
    """Show strengths, agreement of the metrics with people, and the checks of the reviewers."""
    st.html(_summary(results, selection))
    if results.strengths.rows:
        st.html(f'<h2>What people prefer</h2><p class="lp-note">{escape(strength_note(results.strengths))}</p>')
        st.altair_chart(_strength_chart(results.strengths), width="stretch", alt="Strength of each checkpoint")
        st.html(strength_table(results))
    st.html(
        f'<h2>Do the metrics agree with people?</h2><p class="lp-note">{AGREEMENT_NOTE}</p>'
        f"{agreement_table(results.metrics)}"
    )
    st.html(f'<h2>Reviewers</h2><p class="lp-note">{CHECK_NOTE}</p>{_reviewer_table(results.checks)}')


def _summary(results: VoteResults, selection: Selection | None) -> str:
    rows, names = results.strengths.rows, {vote.reviewer for vote in results.votes}
    title, sentence = "Too few votes to say", "The base model must meet at least one checkpoint."
    if rows:
        best = rows[0]
        title = f"People prefer {step_label(best.step).lower()}"
        sentence = "It cannot be told from the base model yet."
        if best.step == 0:
            title, sentence = "People prefer the base model", "No checkpoint was preferred more often."
        elif best.lo is not None and best.lo > 0:
            sentence = "Its interval against the base model lies above zero."
        if selection and selection.verdict == "selected":
            same = "the same" if selection.step == best.step else f"another: {step_label(selection.step).lower()}"
            sentence += f" The metrics recommend {same}."
    shown = {
        "Votes": str(len(results.votes)),
        "Reviewers": str(len(names)),
        "Prompts": str(len({vote.prompt_id for vote in results.votes})),
        "Agreement of reviewers": "not known yet"
        if results.alpha is None
        else f"α = {results.alpha:.2f} on {results.n_shared} shared questions",
    }
    if results.n_other:
        shown["On pictures of other runs, not counted"] = str(results.n_other)
    return headline(title, escape(sentence)) + facts(shown)


def _strength_chart(strengths: Strengths) -> alt.LayerChart:
    data = [
        {"checkpoint": step_label(row.step), "strength": row.log_odds, "lo": row.lo, "hi": row.hi}
        for row in strengths.rows
    ]
    order = [item["checkpoint"] for item in data]
    base = alt.Chart(alt.Data(values=data)).encode(y=alt.Y("checkpoint:N", sort=order, title=None))
    title = "strength: log odds to be preferred over the base model  →"
    x = alt.X("strength:Q", title=title, axis=alt.Axis(tickCount=8))
    tooltip = [alt.Tooltip("checkpoint:N"), *(alt.Tooltip(f"{n}:Q", format=".2f") for n in ("strength", "lo", "hi"))]
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=NULL, strokeDash=[5, 4]).encode(x="zero:Q")
    bars = base.transform_filter("isValid(datum.lo)").mark_rule(color=SCORE, opacity=0.45, strokeWidth=6)
    points = base.mark_point(color=SCORE, filled=True, size=90, opacity=1).encode(x=x, tooltip=tooltip)
    return alt.layer(zero, bars.encode(x=alt.X("lo:Q", title=title), x2="hi:Q"), points).properties(
        height=34 * len(data) + 50
    )


def _reviewer_table(checks: Sequence[ReviewerChecks]) -> str:
    lines = [
        (
            escape(row.reviewer),
            str(row.n_answers),
            str(row.n_ties),
            _of(row.same),
            _of(row.repeats),
            f"{100 * row.left[0] / row.left[1]:.0f} %" if row.left[1] else "–",
        )
        for row in checks
    ]
    head = ("Reviewer", "Answers", "Ties", "Same picture seen as such", "Repeats answered alike", "Chose left")
    return vote_table(head, lines)


def _of(counts: tuple[int, int]) -> str:
    return f"{counts[0]} of {counts[1]}" if counts[1] else "–"
