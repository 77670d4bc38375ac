"""Optional experiment trackers (TensorBoard, Weights & Biases), through accelerate's own classes, always offline.

They see what metrics/train.csv and metrics/validation.csv hold, and no picture. Nothing is sent anywhere: wandb writes
to disk, and `wandb sync` is the user's to call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from loupe.errors import PipelineError

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

PROJECT = "loupe"


def require_trackers(names: Sequence[str]) -> None:
    """Raise PipelineError, for all at once, when the package of a tracker is not installed."""
    absent = [name for name in names if find_spec(name) is None]
    if absent:
        raise PipelineError(
            f"train.trackers asks for {', '.join(absent)}, which is not installed here. "
            f"Run: pip install {' '.join(absent)}; or take it out of train.trackers."
        )


class Trackers:
    """The trackers of one run, none of them in the usual case; they are started by the first thing that is logged."""

    def __init__(self, names: Sequence[str], *, folder: Path, run_name: str, settings: Mapping[str, Any]) -> None:
        self.names = tuple(dict.fromkeys(names))
        self.folder = folder
        self.run_name = run_name
        self.settings = settings
        self._started: list[GeneralTracker] | None = None

    def log(self, values: Mapping[str, float | None], *, step: int) -> None:
        """Hand the values that exist to every tracker; steps must not go back."""
        present = {name: value for name, value in values.items() if value is not None and name != "step"}
        for tracker in self._running():
            tracker.log(present, step=step)

    def finish(self) -> None:
        """Flush and close what was started."""
        for tracker in self._started or ():
            tracker.finish()
        self._started = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish; where the block failed, only what would else lose its last rows, and without hiding the failure.

        Weights & Biases marks a run as crashed by itself when the process ends, unless it was finished before.
        """
        if kind is None:
            self.finish()
            return
        for name, tracker in zip(self.names, self._started or (), strict=False):
            if name != "wandb":
                with suppress(Exception):
                    tracker.finish()

    def _running(self) -> list[GeneralTracker]:
        if self._started is None:
            self._started = [self._start(name) for name in self.names]
        return self._started

    def _start(self, name: str) -> GeneralTracker:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # or accelerate's own log lines raise; where processes were joined, it is theirs
        self.folder.mkdir(parents=True, exist_ok=True)
        if name == "wandb":
            tracker = LOGGER_TYPE_TO_CLASS[name](PROJECT, name=self.run_name, dir=str(self.folder), mode="offline")
        else:
            tracker = LOGGER_TYPE_TO_CLASS[name](self.run_name, str(self.folder))
        tracker.start()
        tracker.store_init_configuration(_flat(self.settings))
        return tracker


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every tracker takes as a setting: numbers, strings and truth values; all else as text."""
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in settings.items()
    }
