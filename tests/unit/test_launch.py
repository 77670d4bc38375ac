import sys

import pytest

from loupe import launch
from loupe.errors import PipelineError

LAUNCHER_VARIABLES = ("LOUPE_LAUNCH", "WORLD_SIZE", "MASTER_ADDR", "ACCELERATE_MIXED_PRECISION")


@pytest.fixture(autouse=True)
def _not_launched(monkeypatch):
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def commands(monkeypatch):
    """What would have replaced this process."""
    found = []
    monkeypatch.setattr(launch.os, "execv", lambda program, command: found.append((program, command)))
    return found


def test_without_the_variable_the_stage_goes_on_as_it_is(commands):
    launch.launch_if_asked("stages.train", [])
    launch.require_launch_as_asked("prepare", may_be_many=False)
    assert commands == []
    assert launch.launched_processes() == 1


def test_the_options_go_to_accelerate_launch_with_the_stage_and_its_arguments(commands, monkeypatch):
    monkeypatch.setenv("LOUPE_LAUNCH", "--num_processes 4 --config_file 'my gpus.yaml'")
    launch.launch_if_asked("stages.train", ["--params", "other.yaml"])
    ((program, command),) = commands
    assert program == command[0] == sys.executable
    assert command[1:3] == ["-m", "accelerate.commands.launch"]
    assert command[-8:] == [
        "--num_processes", "4", "--config_file", "my gpus.yaml", "-m", "stages.train", "--params", "other.yaml",
    ]  # fmt: skip
    assert "LOUPE_LAUNCH" not in launch.os.environ


def test_a_process_that_was_launched_launches_nothing(commands, monkeypatch):
    monkeypatch.setenv("LOUPE_LAUNCH", "--num_processes 4")
    monkeypatch.setenv("WORLD_SIZE", "4")
    launch.launch_if_asked("stages.train", [])
    assert commands == []
    assert launch.launched_processes() == 4


def test_an_open_quote_is_told_with_an_example(commands, monkeypatch):
    monkeypatch.setenv("LOUPE_LAUNCH", "--config_file 'my")
    with pytest.raises(PipelineError, match=r"LOUPE_LAUNCH is .*: No closing quotation.*--num_processes 4"):
        launch.launch_if_asked("stages.train", [])


def test_a_stage_of_one_process_refuses_to_be_several(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PipelineError, match=r"encode runs in one process, and 2 were started.*python -m stages.encode"):
        launch.require_launch_as_asked("encode", may_be_many=False)
    launch.require_launch_as_asked("train", may_be_many=True)


def test_one_process_where_several_were_asked_for_is_refused(monkeypatch):
    """What `accelerate launch --cpu --num_processes 2` leaves in the environment of the one process it starts."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    launch.require_launch_as_asked("train", may_be_many=True)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(PipelineError, match=r"started one.*accelerate launch --multi_gpu --num_processes 2"):
        launch.require_launch_as_asked("train", may_be_many=True)
