"""What a running training leaves behind: speed without the pauses, few writes, and trackers that stay at home."""

import csv
import subprocess
import sys
from contextlib import nullcontext
from itertools import pairwise

import pytest

from loupe.diffusion import trackers as trackers_module
from loupe.diffusion.trackers import Trackers, require_trackers
from loupe.diffusion.train_log import TrainLog, peak_memory_gb
from loupe.errors import PipelineError
from loupe.records import TrainRow

NONE = {"folder": None, "run_name": "run", "settings": {}}


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def rows(clock, n_steps, *, step_s=0.5, first=1):
    for step in range(first, first + n_steps):
        clock.now += step_s
        yield TrainRow(step=step, loss=0.2, loss_smoothed=0.25, learning_rate=1e-3, grad_norm=1.0)


def make_log(tmp_path, clock, *, interval_s=2.0, trackers=None, device="cpu"):
    return TrainLog(
        train_csv=tmp_path / "metrics" / "train.csv",
        telemetry_csv=tmp_path / ".work" / "train-telemetry.csv",
        images_per_step=16,
        device=device,
        trackers=trackers or Trackers((), **NONE),
        interval_s=interval_s,
        clock=clock,
    )


def written(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_speed_counts_the_training_and_not_the_validation_between_the_steps(tmp_path):
    clock = Clock()
    log, seen = make_log(tmp_path, clock), []
    for row in log.follow(rows(clock, 8), lambda: seen):
        seen.append(row)
        if row.step == 4:
            clock.now += 60
    entries = written(log.telemetry_csv)
    assert [int(entry["step"]) for entry in entries] == [1, 5, 8]
    assert {float(entry["images_per_s"]) for entry in entries} == {32.0}
    assert [float(entry["elapsed_s"]) for entry in entries] == [0.5, 62.5, 64.0]
    assert log.note(seen[-1]) == "step 8, loss 0.2500, 32 images/s"


def test_a_resumed_run_counts_its_own_steps_only(tmp_path):
    clock = Clock()
    log = make_log(tmp_path, clock)
    earlier = list(rows(Clock(), 50))
    earlier.extend(log.follow(rows(clock, 4, first=51), lambda: earlier))
    assert float(written(log.telemetry_csv)[-1]["images_per_s"]) == 32.0
    assert [int(entry["step"]) for entry in written(log.train_csv)] == list(range(1, 55))


@pytest.mark.parametrize("per_row_s", [0.0, 1e-4])
def test_writing_takes_at_most_a_fiftieth_of_the_time_and_waits_no_longer_than_it_must(
    tmp_path, monkeypatch, per_row_s
):
    """The file is written whole and grows, so at a fixed interval it would cost ever more."""
    from loupe.diffusion import train_log

    clock, began = Clock(), []
    log = make_log(tmp_path, clock)
    so_far = []

    def write(target, _, lines):
        if target == log.train_csv:
            began.append(clock.now)
            clock.now += per_row_s * len(list(lines))

    monkeypatch.setattr(train_log, "write_csv", write)
    n_steps = 10_000
    so_far.extend(log.follow(rows(clock, n_steps, step_s=1.0), lambda: so_far))
    assert (clock.now - 100 - n_steps) / n_steps < 1 / 50
    longest = max(later - earlier for earlier, later in pairwise(began))
    assert longest <= 2.0 + 1.0 + 51 * per_row_s * n_steps
    assert per_row_s or len(began) == n_steps // 2 + 1


def test_the_steps_before_a_training_stopped_are_written(tmp_path):
    """They show how it came about: they were missing where less than the interval had passed since the last writing."""
    clock = Clock()
    log, so_far = make_log(tmp_path, clock, interval_s=1000.0), []

    def stopping():
        for row in rows(clock, 7):
            so_far.append(row)
            yield row
        raise PipelineError("loss nan")

    with pytest.raises(PipelineError, match="loss nan"):
        list(log.follow(stopping(), lambda: so_far))
    assert [int(entry["step"]) for entry in written(log.train_csv)] == list(range(1, 8))


def test_nothing_trained_leaves_nothing(tmp_path):
    log = make_log(tmp_path, Clock())
    assert list(log.follow([], list)) == []
    assert not log.telemetry_csv.exists()


def test_memory_is_what_the_process_had_at_most_and_absent_where_nothing_counts_it():
    code = (
        "from loupe.diffusion.train_log import peak_memory_gb\n"
        "block = bytearray(300_000_000)\n"
        "block[::4096] = b'x' * len(block[::4096])\n"
        "del block\n"
        "print(peak_memory_gb('cpu'))"
    )
    # By way of a shell: Linux counts the memory of the process that starts another one as that one's.
    command = ["/bin/sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0.3 < float(done.stdout) < 2
    assert peak_memory_gb("mps") is None


# --- trackers --------------------------------------------------------------------------------------------------------


def test_an_absent_tracker_is_named_with_what_to_install():
    with pytest.raises(PipelineError, match=r"asks for no_such_tracker.*pip install no_such_tracker"):
        require_trackers(["no_such_tracker"])
    require_trackers([])


@pytest.fixture
def recorded(monkeypatch):
    """A tracker registered with accelerate that keeps what it is told."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

    class Recorder(GeneralTracker):
        name = "tensorboard"
        requires_logging_directory = True
        events = []  # noqa: RUF012

        def __init__(self, run_name, logging_dir):
            super().__init__()
            self.events.append(("made", run_name, logging_dir))

        @property
        def tracker(self):
            return self.events

        def store_init_configuration(self, values):
            self.events.append(("settings", values))

        def log(self, values, step=None):
            self.events.append((step, values))

        def finish(self):
            self.events.append("finished")

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "tensorboard", Recorder)
    return Recorder.events


def test_trackers_get_every_row_and_only_values_that_exist(tmp_path, recorded):
    trackers = Trackers(
        ["tensorboard", "tensorboard"],
        folder=tmp_path / "logs",
        run_name="abc",
        settings={"rank": 8, "names": ["to_q"]},
    )
    clock = Clock()
    trackers.log({"step": 0, "val_loss": 0.5, "val_loss_diff_base": None}, step=0)
    list(make_log(tmp_path, clock, trackers=trackers).follow(rows(clock, 2), list))
    trackers.finish()

    assert recorded[:3] == [
        ("made", "abc", str(tmp_path / "logs")),
        ("settings", {"rank": 8, "names": "['to_q']"}),
        (0, {"val_loss": 0.5}),
    ]
    assert [event[0] for event in recorded[3:5]] == [1, 2]
    assert recorded[3][1] == {"loss": 0.2, "loss_smoothed": 0.25, "learning_rate": 1e-3, "grad_norm": 1.0}
    assert recorded[5:] == ["finished"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_fails_is_closed_where_rows_would_be_lost_and_not_where_it_would_pass_for_finished(
    tmp_path, monkeypatch, recorded, fails
):
    """Weights & Biases marks a process that crashes by itself, unless the run was finished before."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    ended = []

    class Wandb(LOGGER_TYPE_TO_CLASS["tensorboard"]):
        requires_logging_directory = False

        def __init__(self, project, **_options):
            super().__init__(project, None)

        def finish(self):
            ended.append("wandb")

    class Breaking(LOGGER_TYPE_TO_CLASS["tensorboard"]):
        def finish(self):
            ended.append("tensorboard")
            if fails:
                raise OSError("disk full")

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "wandb", Wandb)
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "tensorboard", Breaking)

    def run():
        with Trackers(["wandb", "tensorboard"], folder=tmp_path, run_name="abc", settings={}) as trackers:
            trackers.log({"loss": 1.0}, step=1)
            if fails:
                raise PipelineError("training stopped")

    with pytest.raises(PipelineError, match="training stopped") if fails else nullcontext():
        run()
    assert ended == (["tensorboard"] if fails else ["wandb", "tensorboard"])


def test_wandb_is_started_offline(tmp_path, monkeypatch):
    from accelerate import PartialState
    from accelerate.logging import get_logger
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState._reset_state()
    started = {}

    class Wandb:
        def __init__(self, project, **options):
            started.update(options, project=project)

        def start(self):
            get_logger("accelerate").debug("as the real one does, which needs accelerate's state")

        def store_init_configuration(self, values): ...

        def log(self, values, step): ...

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "wandb", Wandb)
    Trackers(["wandb"], folder=tmp_path / "logs", run_name="abc", settings={}).log({"loss": 1.0}, step=1)
    assert started == {
        "project": trackers_module.PROJECT,
        "name": "abc",
        "dir": str(tmp_path / "logs"),
        "mode": "offline",
    }


def test_tensorboard_writes_below_the_given_folder(tmp_path):
    pytest.importorskip("tensorboard")
    trackers = Trackers(["tensorboard"], folder=tmp_path / "logs", run_name="abc", settings={"rank": 8})
    trackers.log({"loss": 0.5}, step=1)
    trackers.finish()
    assert list((tmp_path / "logs" / "abc").glob("events.*"))
