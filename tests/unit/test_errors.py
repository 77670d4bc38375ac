"""A user's mistake is one bare message and exit code 2; a bug keeps its traceback."""

import errno

import pytest

from loupe.errors import PipelineError, exit_on_user_error, nearest_names, problems_message


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PipelineError("a.csv is not there."), 2, "error: a.csv is not there.\n"),
        (KeyboardInterrupt(), 130, "Finished work is kept"),
        (OSError(errno.ENOSPC, "No space left on device", "x.png"), 2, "The disk is full while writing x.png"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 2, "The disk is full. Nothing half-written"),
    ],
)
def test_what_a_user_can_mend_is_said_bare_with_its_exit_code(error, code, said, capsys):
    with pytest.raises(SystemExit) as end:
        exit_on_user_error(raising(error))
    assert end.value.code == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("bug"), OSError(errno.EACCES, "Permission denied"), KeyError("x")])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        exit_on_user_error(raising(error))


def test_work_that_ends_well_exits_nothing(capsys):
    exit_on_user_error(lambda: print("done"))
    assert capsys.readouterr().out == "done\n"


def test_nearest_names_ignore_case_and_come_best_first():
    known = ["Casual Shoes", "Formal Shoes", "Watches"]
    assert nearest_names("casual shoe", known)[0] == "Casual Shoes"
    assert nearest_names("CASUAL SHOES", known, limit=1) == ["Casual Shoes"]
    assert nearest_names("zzzz", known) == []


def test_all_problems_are_in_one_message():
    assert problems_message("params.yaml", ["a", "b"]) == "params.yaml: 2 problems\n  a\n  b"
    assert problems_message("x", ["a"]).startswith("x: 1 problem\n")
