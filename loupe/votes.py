"""The votes of reviewers, kept in one SQLite file: durable, safe for several reviewers at once, exported as CSV.

It knows nothing of checkpoints' scores and computes nothing; see vote_statistics.py. The file lies beside the results
but belongs to no stage, so no run of the pipeline ever removes it.
"""

from __future__ import annotations

import csv
import io
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

from loupe.errors import PipelineError

Choice = Literal["left", "right", "tie", "skip"]
Kind = Literal["pair", "same", "repeat"]
REVIEWER = re.compile(r"\w[\w .@-]{0,39}")
"""A name that is safe in a table, in a file and in a spreadsheet (no leading = + - @)."""
_BUSY_S = 30.0
_RETRY_S = 0.01
_PRIMARY_CODE = 0xFF
"""The bits of an SQLite error that say what it is; those above say of what kind."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS votes (
  plan TEXT NOT NULL, position INTEGER NOT NULL, reviewer TEXT NOT NULL, kind TEXT NOT NULL,
  prompt_id TEXT NOT NULL, seed_index INTEGER NOT NULL, step_left INTEGER NOT NULL, step_right INTEGER NOT NULL,
  sha256_left TEXT NOT NULL, sha256_right TEXT NOT NULL, choice TEXT NOT NULL
    CHECK (choice IN ('left', 'right', 'tie', 'skip')), voted_at TEXT NOT NULL, elapsed_s REAL,
  PRIMARY KEY (plan, reviewer, position)
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Vote:
    """One answer of one reviewer."""

    plan: str
    """Fingerprint of the list of questions that it belongs to."""
    position: int
    """Of the question in that list, from 0."""
    reviewer: str
    kind: Kind
    """pair: two checkpoints; same: one picture twice (an A/A check); repeat: a pair that was asked before."""
    prompt_id: str
    seed_index: int
    step_left: int
    step_right: int
    sha256_left: str
    sha256_right: str
    choice: Choice
    voted_at: str
    """UTC, ISO 8601."""
    elapsed_s: float | None
    """From showing the question to the answer."""


_COLUMNS = tuple(field.name for field in fields(Vote))


class VoteBook:
    """Reads and writes the votes in one file; every method opens it anew, so threads and processes may share it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def add(self, vote: Vote) -> bool:
        """Keep a vote, on disk when this returns; False when the reviewer has answered this question already."""
        with self._open(writes=True) as connection:
            marks = ", ".join("?" * len(_COLUMNS))
            added = connection.execute(
                f"INSERT INTO votes ({', '.join(_COLUMNS)}) VALUES ({marks}) ON CONFLICT DO NOTHING", astuple(vote)
            )
            return added.rowcount == 1

    def votes(self) -> list[Vote]:
        """Return all votes, ordered by time, reviewer and position; none when nobody has voted yet."""
        if not self.file.is_file():
            return []
        with self._open() as connection:
            rows = connection.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM votes ORDER BY voted_at, reviewer, plan, position"
            ).fetchall()
        return [Vote(*row) for row in rows]

    @contextmanager
    def _open(self, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield a connection whose changes are committed when the block ends; its errors become PipelineErrors."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.file, timeout=_BUSY_S, isolation_level=None)
            try:
                _log_ahead(connection)
                connection.execute("PRAGMA synchronous=FULL")
                # A writer's lock is waited for only where it is taken at once: SQLite refuses to widen a reader's.
                connection.execute("BEGIN IMMEDIATE" if writes or not _has_table(connection) else "BEGIN")
                with connection:
                    # SQLite reads the whole pages of a damaged file in silence, and would go on writing into it.
                    (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                    if finding != "ok":
                        raise sqlite3.DatabaseError(" ".join(finding.split()))
                    connection.execute(_SCHEMA)
                    yield connection
            finally:
                connection.close()
        except OSError as error:
            raise PipelineError(
                f"The votes in {self.file.name} cannot be kept: {error.strerror}. Check that data/votes is a folder "
                "that can be written to."
            ) from None
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:
                raise PipelineError(
                    f"{self.file.name} holds something else than Loupe's votes: {error}. Move it out of data/votes to "
                    "start anew."
                ) from None
            raise PipelineError(
                f"The votes in {self.file.name} cannot be used now: {error}. If another program holds the file open, "
                "close it; otherwise check that its folder can be written to."
            ) from None
        except sqlite3.DatabaseError as error:
            raise PipelineError(
                f"The votes in {self.file.name} cannot be read: {error}. Move the file out of data/votes to start "
                "anew, and keep it: `sqlite3 FILE .recover` may bring its votes back."
            ) from None


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Let readers go on while somebody writes; the file keeps the mode.

    Two connections that switch a new file at once stand in each other's way, and SQLite refuses one without waiting.
    """
    give_up = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & _PRIMARY_CODE == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > give_up:
                raise
        time.sleep(_RETRY_S)


def _has_table(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'votes'").fetchone() is not None


def vote_book(root: Path) -> VoteBook:
    """Return the votes of the project in `root`; the file comes with the first vote."""
    return VoteBook(root / "data" / "votes" / "votes.sqlite")


def votes_csv(votes: list[Vote]) -> str:
    """Return the votes as CSV with a header, one line each."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(astuple(vote) for vote in votes)
    return buffer.getvalue()
