"""What a running training leaves behind as it goes: metrics/train.csv, the telemetry beside it, a note for the bar.

train.csv holds numbers that are the same every time; speed and memory belong to the machine and the moment and go to
.work. Writing takes at most a fiftieth of the time: both grow with the run. It waits for no GPU.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from loupe.atomic_io import write_csv
from loupe.diffusion.trackers import Trackers
from loupe.records import TrainRow
from loupe.train_records import TelemetryRow

PAUSE = 50
"""How many times as long as the last writing took nothing is written: what is written grows with the run, so at a fixed
interval it would cost more and more."""
Clock = Callable[[], float]


class TrainLog:
    """Follows the rows of one training process."""

    def __init__(
        self,
        *,
        train_csv: Path,
        telemetry_csv: Path,
        images_per_step: int,
        device: str,
        trackers: Trackers,
        interval_s: float,
        clock: Clock = time.monotonic,
    ) -> None:
        self.train_csv = train_csv
        self.telemetry_csv = telemetry_csv
        self.images_per_step = images_per_step
        self.device = device
        self.trackers = trackers
        self.interval_s = interval_s
        self.clock = clock
        self.telemetry: list[TelemetryRow] = []
        self._training_s = 0.0
        self._n_steps = 0

    def follow(self, rows: Iterable[TrainRow], so_far: Callable[[], Sequence[TrainRow]]) -> Iterator[TrainRow]:
        """Yield the rows unchanged; `so_far` returns all rows of the run, those from before this process included.

        The time that the consumer takes between two rows (validation, previews) does not count as training.
        """
        started = asked = self.clock()
        due, counted = started, (0.0, 0)
        row = None
        try:
            for row in rows:
                now = self.clock()
                self._training_s += now - asked
                self._n_steps += 1
                self.trackers.log(row.model_dump(), step=row.step)
                if now >= due:
                    self._write(row, so_far(), elapsed_s=now - started, since=counted)
                    written, counted = self.clock(), (self._training_s, self._n_steps)
                    due = written + max(self.interval_s, PAUSE * (written - now))
                yield row
                asked = self.clock()
        finally:  # what a training that was stopped went through is wanted most
            if row is not None and counted[1] < self._n_steps:
                self._write(row, so_far(), elapsed_s=self.clock() - started, since=counted)

    def note(self, row: TrainRow) -> str:
        """Return what stands behind the numbers of the progress bar."""
        rate = f", {self._n_steps * self.images_per_step / self._training_s:.3g} images/s" if self._training_s else ""
        return f"step {row.step}, loss {row.loss_smoothed:.4f}{rate}"

    def _write(self, row: TrainRow, so_far: Sequence[TrainRow], *, elapsed_s: float, since: tuple[float, int]) -> None:
        write_train_csv(self.train_csv, so_far)
        training_s, n_steps = self._training_s - since[0], self._n_steps - since[1]
        if training_s <= 0:
            return
        self.telemetry.append(
            TelemetryRow(
                step=row.step,
                images_per_s=round(n_steps * self.images_per_step / training_s, 3),
                elapsed_s=round(elapsed_s, 3),
                peak_memory_gb=peak_memory_gb(self.device),
            )
        )
        write_csv(self.telemetry_csv, list(TelemetryRow.model_fields), (entry.model_dump() for entry in self.telemetry))


def write_train_csv(target: Path, rows: Iterable[TrainRow]) -> None:
    """Write metrics/train.csv whole."""
    write_csv(target, list(TrainRow.model_fields), (row.model_dump() for row in rows))


def peak_memory_gb(device: str) -> float | None:
    """Return the highest memory use so far in 1e9 bytes, see TelemetryRow; None where nothing counts it (MPS)."""
    if device == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated() / 1e9, 3)
    if device == "cpu":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e9, 3)
    return None
