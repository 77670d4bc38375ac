"""Progress lines off a terminal: often enough to see life, never one per image."""

import io
import re
import sys
import time

import pytest

from loupe import progress
from loupe.progress import progress_line, say, track


def test_items_come_through_unchanged_and_in_order(capsys):
    assert list(track(iter("abc"), total=3, what="prepare")) == ["a", "b", "c"]
    assert capsys.readouterr().out.count("\n") == 1


def test_quick_work_prints_one_closing_line(capsys):
    list(track(range(5), total=5, what="generate", unit="image"))
    assert capsys.readouterr().out.startswith("generate: 5/5 images (100 %)")


def test_nothing_to_do_prints_nothing(capsys):
    assert list(track([], total=0, what="x")) == []
    assert capsys.readouterr().out == ""


def test_slow_work_prints_a_line_per_interval(capsys, monkeypatch):
    clock = iter(range(0, 100_000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    list(track(range(10), total=10, what="train", unit="step"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["3/10", "6/10", "9/10", "10/10"]


def test_it_is_lazy(monkeypatch):
    taken = []
    items = track((taken.append(i) or i for i in range(10)), total=10, what="x")
    next(items)
    assert taken == [0]


@pytest.mark.parametrize(
    ("done", "total", "elapsed_s", "line"),
    [
        (75, 300, 18.3, "train: 75/300 steps (25 %), 4.1 steps/s, 55 s left"),
        (300, 300, 60.0, "train: 300/300 steps (100 %), 5 steps/s"),
        (0, 300, 0.0, "train: 0/300 steps (0 %)"),
        (3, 0, 0.0, "train: 3/0 steps"),
    ],
)
def test_a_line_says_share_rate_and_time_left(done, total, elapsed_s, line):
    assert progress_line("train", done, total, elapsed_s, "step") == line


def test_units_that_end_in_ch_have_their_plural():
    assert progress_line("validation", 4, 28, 2.0, "batch") == "validation: 4/28 batches (14 %), 2 batches/s, 12 s left"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_one_bar_with_the_note_the_rate_and_the_time_left(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    items = track(range(1, 5), total=4, what="train", unit="step", note=lambda n: f"step {n}, loss 0.2, 41 images/s")
    for item in items:
        if item == 3:
            time.sleep(0.15)
    bars = [bar for bar in terminal.getvalue().split("\r") if "step 3, loss 0.2, 41 images/s" in bar]
    assert bars
    assert re.search(r"train: +\d+%.* \d/4 \[\d\d:\d\d<\d\d:\d\d, .*step/s", bars[0])


def test_a_line_of_its_own_reaches_the_output_with_a_bar_and_without(monkeypatch, capsys):
    say("validation at step 0")
    assert capsys.readouterr().out == "validation at step 0\n"
    monkeypatch.setattr(sys, "stderr", Terminal())
    for _ in track(range(2), total=2, what="train"):
        say("in between")
    assert capsys.readouterr().out == "in between\nin between\n"
