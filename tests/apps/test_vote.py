"""The Vote page: blind while one votes, each answer kept at once, and what the votes say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from loupe.run_store import RunStore
from loupe.vote_plan import vote_plan
from loupe.votes import Choice, Vote, vote_book
from tests.apps.page_driver import html_of, open_page
from tests.run_fixture import Shape, complete_run

SHAPE = Shape(steps=(75, 150), seeds=2, size_px=16, captions=0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return complete_run(tmp_path, SHAPE)


def press(app: AppTest, answer: str) -> AppTest:
    return app.button(key=f"answer-{answer}").click().run()


def prefer_later(root: Path, reviewer: str, count: int) -> None:
    """Vote for the later step, a tie on a picture against itself."""
    plan = vote_plan(RunStore(root).samples_manifest(), (0, *SHAPE.steps))
    for question in plan.questions[:count]:
        choice: Choice = "tie" if question.kind == "same" else "right"
        vote_book(root).add(
            Vote(
                plan=plan.key,
                position=question.position,
                reviewer=reviewer,
                kind=question.kind,
                prompt_id=question.one.prompt_id,
                seed_index=question.one.seed_index,
                step_left=question.one.step,
                step_right=question.other.step,
                sha256_left=question.one.sha256,
                sha256_right=question.other.sha256,
                choice=choice,
                voted_at="2026-01-01T00:00:00+00:00",
                elapsed_s=None,
            )
        )


def test_nothing_tells_which_checkpoint_is_which(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    html = html_of(open_page(monkeypatch, root, "vote", reviewer="Ann"))
    assert html.count("/img/") == 4, "the pair, and the next one for the browser to fetch"
    assert not re.search(r"[Ss]tep|[Bb]ase model|150|black_shoes", html)
    assert 'alt="Left picture"' in html


def test_a_vote_needs_a_name_that_can_be_kept(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    for name in ("", "=cmd()", "<script>"):
        app = open_page(monkeypatch, root, "vote", reviewer=name)
        html = html_of(app)
        assert "Which picture is better?" in html
        assert ("A name holds letters" in html) == bool(name)
        assert "/img/" not in html
        assert "answer-left" not in [button.key for button in app.button]


def test_the_first_screen_says_what_to_do_and_a_name_begins(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    prefer_later(root, "Bob", 3)
    app = open_page(monkeypatch, root, "vote")
    html = html_of(app)
    for expected in ("<b>27 questions</b> about 3 checkpoints", "<kbd>1</kbd> left", "Answered so far: Bob 3"):
        assert expected in html, expected
    app.text_input(key="reviewer").set_value("Ann").run()
    assert "0 of 27 questions" in html_of(app)
    app.text_input(key="reviewer").set_value("").run()
    assert "Which picture is better?" in html_of(app), "without a name it is the first screen again"


def test_each_answer_is_kept_and_the_next_question_comes(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    app = open_page(monkeypatch, root, "vote", reviewer="Ann")
    before = re.findall(r"/img/(\w+)", html_of(app))
    app = press(press(app, "left"), "tie")
    assert not app.exception
    first, second = vote_book(root).votes()
    assert (first.reviewer, first.position, first.choice) == ("Ann", 0, "left")
    assert [first.sha256_left, first.sha256_right] == before[:2], "left is what stood left"
    assert (second.position, second.choice) == (1, "tie")
    assert "2 of 27 questions" in html_of(app)
    again = open_page(monkeypatch, root, "vote", reviewer="Ann")
    assert "2 of 27 questions" in html_of(again), "a reload goes on where it was"
    assert "0 of 27 questions" in html_of(open_page(monkeypatch, root, "vote", reviewer="Bob"))


def test_a_picture_that_is_gone_can_only_be_skipped(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    question = vote_plan(RunStore(root).samples_manifest(), (0, *SHAPE.steps)).questions[0]
    (root / "data" / "samples" / question.other.file).unlink()
    app = open_page(monkeypatch, root, "vote", reviewer="Ann")
    assert app.button(key="answer-left").disabled
    press(app, "skip")
    assert [vote.choice for vote in vote_book(root).votes()] == ["skip"]


def test_results_say_who_is_preferred_how_sure_and_whether_metrics_agree(
    monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    for name in ("Ann", "Bob"):
        prefer_later(root, name, 27)
    html = html_of(open_page(monkeypatch, root, "vote", show="Results"))
    for expected in (
        "<h1>People prefer step 150</h1>", "The metrics recommend the same.", "half a win was added",
        "α = 1.00 on 24 shared questions", "<b>100 %</b>", "agrees", "2 of 2",
    ):  # fmt: skip
        assert expected in html, expected


def test_votes_on_pictures_of_another_run_do_not_count(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    prefer_later(root, "Ann", 4)
    complete_run(root, Shape(steps=(75, 150), seeds=2, size_px=24, captions=0))
    html = html_of(open_page(monkeypatch, root, "vote", show="Results"))
    assert "Too few votes to say" in html
    assert "<dt>On pictures of other runs, not counted</dt><dd>4</dd>" in html


def test_a_damaged_book_of_votes_is_named(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    book = vote_book(root)
    book.file.parent.mkdir(parents=True)
    book.file.write_bytes(b"no database" * 500)
    html = html_of(open_page(monkeypatch, root, "vote", reviewer="Ann"))
    assert "votes.sqlite cannot be read" in html
    assert str(root) not in html


@pytest.mark.parametrize("kind", ["absent", "partial", "running"])
def test_before_there_are_pictures_the_next_command_is_named(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path], kind: str
) -> None:
    assert "<code>dvc repro generate</code>" in html_of(open_page(monkeypatch, runs[kind], "vote", reviewer="Ann"))
