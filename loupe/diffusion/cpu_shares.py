"""On a CPU, equal shares of a batch, or single inputs, side by side, each on cores of its own.

The kernels of a small network are too short to be split over cores well: cores that wait for each other after every
kernel do less than cores that meet once a batch. A network that is large enough for its kernels loses nothing by it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

LEAST_ROWS = 2
"""In a share: for a single row the kernels are slower than two of them are fast."""
MOST_SHARES = 4
"""Python starts the kernels of all shares, one at a time."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def n_shares(n_rows: int, *, n_threads: int) -> int:
    """Return into how many equal shares a batch of `n_rows` is cut: as many as there are cores, or a divisor of that.

    So no core is left over; and a share's rows, on which the last bits of its results depend, are the same for every
    batch of that size on a machine with that many threads.
    """
    return max(
        n
        for n in range(1, MOST_SHARES + 1)
        if n_threads % n == 0 and n_rows % n == 0 and (n == 1 or n_rows >= n * LEAST_ROWS)
    )


def n_at_once(*, n_threads: int) -> int:
    """Return how many inputs that must not be put together are computed at the same time, by the same rule."""
    return max(n for n in range(1, MOST_SHARES + 1) if n_threads % n == 0)


def each_by_itself(work: Callable[[Item], Result], items: Iterable[Item], *, n_at_once: int) -> Iterator[Result]:
    """Yield `work(item)` in order, up to `n_at_once` of them computed at the same time.

    Results wait in memory until they are asked for. An error is raised in its item's place.
    """
    if n_at_once == 1:
        return map(work, items)
    return _threads(n_at_once, torch.get_num_threads()).map(work, items)


def side_by_side(work: Callable[..., Result], *tensors: torch.Tensor, n_shares: int) -> list[Result]:
    """Return the results of `work` for each equal share of the tensors' rows, in order, computed at the same time.

    Gradients are on or off for `work` as they are for the caller. An error of a share is raised here.
    """
    with_gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def compute(*share: torch.Tensor) -> Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(with_gradients):
            return work(*share)

    shares = (tensor.chunk(n_shares) for tensor in tensors)
    return list(_threads(n_shares, torch.get_num_threads()).map(compute, *shares))


@cache
def _threads(count: int, n_cores: int) -> ThreadPoolExecutor:
    """Return `count` threads, each of which computes on its part of the cores."""
    all_have_theirs = threading.Barrier(count + 1)

    def take_cores() -> None:
        torch.get_num_threads()  # a thread's first question sets its number to the process's, so it comes first
        torch.set_num_threads(n_cores // count)
        all_have_theirs.wait()

    threads = ThreadPoolExecutor(count, thread_name_prefix="cpu-share")
    for _ in range(count):
        threads.submit(take_cores)
    all_have_theirs.wait()
    torch.set_num_threads(n_cores)  # threads that are started from now on begin with what was set last
    return threads
