"""The book of votes: durable, once per question, several writers at once, broken files named."""

from __future__ import annotations

import csv
import io
import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from loupe.errors import PipelineError
from loupe.votes import REVIEWER, VoteBook, vote_book, votes_csv
from tests.unit.vote_builder import vote


@pytest.fixture
def book(tmp_path: Path) -> VoteBook:
    return vote_book(tmp_path)


def test_before_the_first_vote_there_is_no_file(book: VoteBook) -> None:
    assert book.votes() == []
    assert not book.file.exists()


def test_a_vote_comes_back_as_it_was_and_a_question_counts_once(book: VoteBook) -> None:
    first = vote(0, 75, "right")
    assert book.add(first)
    assert not book.add(replace(first, choice="left"))
    assert book.add(replace(first, reviewer="Bob", elapsed_s=None))
    assert book.votes() == [first, replace(first, reviewer="Bob", elapsed_s=None)]


@pytest.mark.parametrize("attempt", range(20))
def test_reviewers_who_open_a_new_file_at_once_lose_nothing(book: VoteBook, attempt: int) -> None:
    """Many new files: most of what can go wrong between two connections goes wrong while the file is new."""

    def work(name: str) -> int:
        mine = VoteBook(book.file)
        for position in range(4):
            mine.add(vote(0, 75, "tie", reviewer=name, position=position))
            mine.votes()
        return 4

    with ThreadPoolExecutor(4) as reviewers:
        assert sum(reviewers.map(work, ("Ann", "Bob", "Eve", "Kim"))) == len(book.votes()) == 16


def test_a_vote_survives_the_kill_of_its_process(book: VoteBook) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom loupe.votes import VoteBook\n"
        "from tests.unit.vote_builder import vote\n"
        "VoteBook(Path(sys.argv[1])).add(vote(0, 75, 'left'))\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code, str(book.file)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [v.choice for v in book.votes()] == ["left"]


def test_a_damaged_file_is_named_with_what_to_do(book: VoteBook) -> None:
    book.file.parent.mkdir(parents=True)
    book.file.write_bytes(b"no database" * 500)
    for use in (book.votes, lambda: book.add(vote(0, 75, "left"))):
        with pytest.raises(PipelineError, match=r"votes\.sqlite cannot be read: .*Move the file"):
            use()


def test_a_locked_file_is_named(book: VoteBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loupe.votes._BUSY_S", 0.05)
    book.add(vote(0, 75, "left"))
    holder = sqlite3.connect(book.file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(PipelineError, match="cannot be used now: database is locked"):
        book.add(vote(0, 75, "left", position=1))
    holder.close()


def test_a_foreign_database_is_named_and_left_as_it_was(book: VoteBook) -> None:
    book.file.parent.mkdir(parents=True)
    foreign = sqlite3.connect(book.file)
    foreign.execute("CREATE TABLE votes (poll TEXT)")
    foreign.execute("INSERT INTO votes VALUES ('kept')")
    foreign.commit()
    for use in (book.votes, lambda: book.add(vote(0, 75, "left"))):
        with pytest.raises(PipelineError, match=r"holds something else than Loupe's votes: .*Move it out"):
            use()
    assert foreign.execute("SELECT poll FROM votes").fetchall() == [("kept",)]
    foreign.close()


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_file_cut_short_never_gives_wrong_votes(book: VoteBook, keep: float) -> None:
    """Nothing left is a new book; anything else is named."""
    for position in range(40):
        book.add(vote(0, 75, "left", position=position))
    sqlite3.connect(book.file).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    content = book.file.read_bytes()
    book.file.write_bytes(content[: int(len(content) * keep)])
    if keep == 0:
        assert book.votes() == []
        assert book.add(vote(0, 75, "left"))
    else:
        with pytest.raises(PipelineError, match="Move the file"):
            book.votes()


def test_a_place_that_is_no_folder_is_named(book: VoteBook) -> None:
    book.file.parent.parent.mkdir(parents=True)
    book.file.parent.write_text("a file")
    assert book.votes() == []
    with pytest.raises(PipelineError, match="Check that data/votes is a folder"):
        book.add(vote(0, 75, "left"))


def test_the_csv_holds_every_field(book: VoteBook) -> None:
    rows = list(csv.DictReader(io.StringIO(votes_csv([vote(0, 75, "tie", reviewer="Ann, the first")]))))
    assert (rows[0]["reviewer"], rows[0]["choice"], rows[0]["step_right"]) == ("Ann, the first", "tie", "75")


@pytest.mark.parametrize("name", ["", "=1+1", "@cmd", "-x", " x", "a" * 41, "<b>", "a\nb"])
def test_a_name_that_could_do_harm_is_refused(name: str) -> None:
    assert not REVIEWER.fullmatch(name)
    assert REVIEWER.fullmatch("Jürgen O. de Vries-2")
