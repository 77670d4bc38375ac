"""When a device's memory is full: telling that from other errors, giving memory back, doing less at once.

What would fit is for memory.py to say; it estimates, and here is what happens where an estimate was wrong.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from loupe.errors import PipelineError

Result = TypeVar("Result")
FREE_MEMORY = "Free memory on the device, or use the processor: LOUPE_DEVICE=cpu"


class DeviceFull(PipelineError):
    """The device's memory does not hold the work, even in the smallest portion."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Say whether memory was full: CUDA has an exception for it, its libraries, MPS and the CPU only a message."""
    import torch

    first_line = (str(error).splitlines() or [""])[0]
    signs = ("out of memory", "ALLOC_FAILED", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(sign in first_line for sign in signs)


def release_memory(device: str) -> None:
    """Give back to the device what nothing holds any more, recordings included, and what torch keeps for later."""
    import torch

    gc.collect()
    if device == "cuda" and torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif device == "mps" and torch.backends.mps.is_available():
        torch.mps.empty_cache()


@contextmanager
def told_when_full(device: str, advice: Callable[[], str] | None = None) -> Iterator[None]:
    """Raise DeviceFull where the block runs out of the device's memory, with the advice; by default to free memory."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        what_to_do = advice() if advice else "Close other programs." if device == "cpu" else FREE_MEMORY
        raise DeviceFull(f"The memory of {device} is full. {what_to_do}") from None


@dataclass(slots=True)
class Portions:
    """How many things a GPU does at once: half as many from each time on that its memory was full.

    A CPU does always as many as at first: its results' last bits may depend on that.
    """

    at_once: int
    device: str
    advice: str
    """What to do where not even one thing fits."""

    def results(self, count: int, work: Callable[[int, int], Sequence[Result]]) -> list[Result]:
        """Return the `count` results that `work(start, stop)` gives, portion by portion, for things start to stop - 1.

        Raises DeviceFull where one thing alone does not fit.
        """
        done: list[Result] = []
        while len(done) < count:
            try:
                done += work(len(done), min(len(done) + self.at_once, count))
                continue
            except RuntimeError as error:
                if self.device == "cpu" or not is_out_of_memory(error):
                    raise
            # Only here, with the error gone, does nothing hold on to the tensors of the attempt any more.
            release_memory(self.device)
            if self.at_once == 1:
                raise DeviceFull(f"The memory of {self.device} is full. {self.advice}")
            self.at_once //= 2
        return done
