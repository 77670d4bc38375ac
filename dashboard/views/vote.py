"""The Vote page: two pictures of one prompt and seed, blind, by keyboard; and on its other side what the votes say.

While one votes nothing tells which checkpoint is which. Every answer is on disk before the next question shows.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from html import escape

import streamlit as st

from dashboard.components.compare_filters import step_value
from dashboard.components.markup import headline, progress_bar, state_banner
from dashboard.components.vote_tables import show_results
from dashboard.components.vote_welcome import welcome
from dashboard.current_run import current_store
from dashboard.image_route import picture_url
from loupe.errors import PipelineError
from loupe.records import SampleRecord, SamplesManifest
from loupe.run_files import signature
from loupe.run_state import Progress, run_state
from loupe.run_store import RunStore
from loupe.vote_plan import Question, VotePlan, left_is_other, vote_plan
from loupe.vote_results import vote_results
from loupe.votes import REVIEWER, Choice, Vote, VoteBook, vote_book, votes_csv

VOTE, RESULTS = "Vote", "Results"
RESULTS_INTERVAL_S = 2.0
LEAST_SIDE_PX = 384
"""Smaller pictures are enlarged to this side."""
ANSWERS: tuple[tuple[Choice, str, str], ...] = (
    ("left", "Left is better", "1"),
    ("tie", "No difference", "0"),
    ("right", "Right is better", "2"),
)


def show(store: RunStore) -> None:
    """Show the page."""
    manifest, book = store.samples_manifest(), vote_book(store.paths.root)
    banner = state_banner(run_state(store))
    if manifest is None or len(manifest.steps) < 2:
        st.html(
            banner
            + headline(
                "Nothing to vote on yet",
                "A vote needs the finished pictures of two checkpoints: <code>dvc repro generate</code> draws them.",
            )
        )
        return
    _show_vote(store, book, manifest)
    if banner:  # below: who votes looks at pictures, not at the state of the run
        st.html(banner)


def _show_vote(store: RunStore, book: VoteBook, manifest: SamplesManifest) -> None:
    by_name = {step_value(step): step for step in manifest.steps}
    said = st.session_state.get("reviewer", st.query_params.get("reviewer", ""))
    is_named, reviewer = bool(REVIEWER.fullmatch(str(said).strip())), ""
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="lp-vote-bar"):
        side = st.segmented_control(
            "Show", [VOTE, RESULTS], key="show", default=VOTE, bind="query-params", required=True,
            label_visibility="collapsed",
        )  # fmt: skip
        with st.popover(str(said).strip() if is_named else "Only some checkpoints", icon=":material/tune:"):
            if is_named or side == RESULTS:
                reviewer = _name_field()
            among = st.pills(
                "Ask only about these", list(by_name), key="among", selection_mode="multi", bind="query-params"
            )
    chosen = [by_name[name] for name in among] or manifest.steps
    try:
        votes = book.votes()
        if side == RESULTS:
            _follow_votes(book)
            _show_results(store, votes)
            return
        plan = vote_plan(manifest, chosen)
        if not is_named:
            _welcome(plan, votes, n_checkpoints=len(chosen))
            return
        _ask(store, book, votes, reviewer, plan)
    except PipelineError as error:
        st.html(f'<div class="lp-banner corrupt" role="alert"><p>{escape(str(error))}</p></div>')


def _name_field() -> str:
    return st.text_input(
        "Your name", key="reviewer", bind="query-params", max_chars=40, placeholder="who is voting", width=240
    ).strip()


def _welcome(plan: VotePlan, votes: list[Vote], *, n_checkpoints: int) -> None:
    with st.container(key="lp-welcome"):
        st.html(welcome(plan, votes, n_checkpoints=n_checkpoints))
        if not plan.questions:
            st.html('<p class="lp-problem">Choose at least two checkpoints: one picture alone cannot be preferred.</p>')
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
            name = _name_field()
            st.button("Begin", key="begin", type="primary")
        if name:
            allowed = "letters, digits, spaces and . @ - and begins with a letter or digit"
            st.html(f'<p class="lp-problem">A name holds {allowed}.</p>')


@st.fragment(run_every=RESULTS_INTERVAL_S)
def _follow_votes(book: VoteBook) -> None:
    """Run the whole page again when somebody has voted."""
    now = [signature(book.file), signature(book.file.with_name(f"{book.file.name}-wal"))]
    if st.session_state.setdefault("votes_shown", now) != now:
        st.session_state["votes_shown"] = now
        st.rerun()


def _show_results(store: RunStore, votes: list[Vote]) -> None:
    if not votes:
        st.html(headline("No votes yet", "What people prefer shows here as they vote, beside what the metrics say."))
        return
    show_results(vote_results(store, votes), store.selection())
    st.download_button("All votes as CSV", votes_csv(votes), file_name="votes.csv", mime="text/csv", on_click="ignore")


def _ask(store: RunStore, book: VoteBook, votes: list[Vote], reviewer: str, plan: VotePlan) -> None:
    if not plan.questions:
        st.html(headline("Choose at least two checkpoints", "One picture alone cannot be preferred."))
        return
    answered = {vote.position for vote in votes if vote.plan == plan.key and vote.reviewer == reviewer}
    open_questions = [question for question in plan.questions if question.position not in answered]
    if not open_questions:
        st.html(headline("All answered", "Thank you. What the votes say is under Results."))
        return
    question = open_questions[0]
    sides = (
        (question.other, question.one) if left_is_other(plan, question, reviewer) else (question.one, question.other)
    )
    text = next((p.text for p in store.prompts() if p.prompt_id == question.one.prompt_id), "")
    st.html(
        f'<header class="lp-headline lp-question"><h1>Which is the better picture?</h1><p>{escape(text)}</p>'
        f"{progress_bar(Progress(len(answered), len(plan.questions), 'questions', None))}</header>"
    )
    whole = _show_pair(store, sides)
    _show_answers(book, plan, question, sides, reviewer, whole=whole)
    _preload(open_questions[1:2])


def _show_pair(store: RunStore, sides: tuple[SampleRecord, SampleRecord]) -> bool:
    """Show both pictures; False when one of them is not there."""
    found = []
    for record in sides:
        (view,) = store.samples(prompt_ids={record.prompt_id}, seed_indices={record.seed_index}, steps={record.step})
        found.append(view)
    manifest = store.samples_manifest()
    side_px = max(LEAST_SIDE_PX, manifest.width_px if manifest else 0)
    parts = []
    for name, view in zip(("Left", "Right"), found, strict=True):
        shown = (
            f'<img src="{picture_url(view.sha256)}" alt="{name} picture" width="{side_px}">'
            if view.sha256
            else '<p class="lp-empty">This picture is not there or has changed. Skip the question, or bring it back: '
            "dvc checkout --force data/samples</p>"
        )
        parts.append(f"<figure>{shown}</figure>")
    st.html(f'<div class="lp-pair" style="--lp-side:{side_px}px">{"".join(parts)}</div>')
    return all(view.sha256 for view in found)


def _show_answers(
    book: VoteBook, plan: VotePlan, question: Question, sides: tuple[SampleRecord, SampleRecord], reviewer: str, *,
    whole: bool,
) -> None:  # fmt: skip
    shown = st.session_state.get("question_shown")
    if not shown or shown[:2] != (plan.key, question.position):
        shown = st.session_state["question_shown"] = (plan.key, question.position, time.monotonic())

    def answer(choice: Choice) -> None:
        left, right = sides
        vote = Vote(
            plan=plan.key, position=question.position, reviewer=reviewer, kind=question.kind,
            prompt_id=left.prompt_id, seed_index=left.seed_index, step_left=left.step, step_right=right.step,
            sha256_left=left.sha256 or "", sha256_right=right.sha256 or "", choice=choice,
            voted_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            elapsed_s=round(time.monotonic() - shown[2], 2),
        )  # fmt: skip
        try:
            book.add(vote)
        except PipelineError as error:
            st.session_state["vote_error"] = str(error)

    with st.container(key="lp-answers", horizontal=True, horizontal_alignment="center"):
        for choice, label, key in ANSWERS:
            st.button(label, key=f"answer-{choice}", shortcut=key, on_click=answer, args=(choice,), disabled=not whole)
        if not whole:
            st.button("Skip", key="answer-skip", on_click=answer, args=("skip",))
    if error := st.session_state.pop("vote_error", None):
        st.error(f"Your answer was not kept. {error}")


def _preload(questions: list[Question]) -> None:
    """Let the browser fetch the next pair while this one is looked at."""
    urls = [picture_url(s.sha256) for question in questions for s in (question.one, question.other) if s.sha256]
    st.html("".join(f'<img class="lp-next" src="{url}" alt="" aria-hidden="true">' for url in urls) or "<i></i>")


show(current_store())
