"""Progress of long work: a bar with ETA on a terminal, a line per interval elsewhere. It measures nothing itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
LINE_INTERVAL_S = 10.0


def track(
    items: Iterable[Item],
    *,
    total: int,
    what: str,
    unit: str = "image",
    note: Callable[[Item], str] | None = None,
) -> Iterator[Item]:
    """Yield `items` unchanged while showing how many of `total` are done, the rate and the time left.

    `note` is called with every item, in order; what it returns is shown behind the numbers.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        # The average rate, as in the lines: one that follows the last items would jump at every pause for a checkpoint.
        with tqdm(items, total=total, desc=what, unit=unit, dynamic_ncols=True, leave=None, smoothing=0) as bar:
            for item in bar:
                if note:
                    bar.set_postfix_str(note(item), refresh=False)
                yield item
        return
    started = last_line = time.monotonic()
    done, noted = 0, ""
    for done, item in enumerate(items, start=1):
        noted = f", {note(item)}" if note else ""
        yield item
        now = time.monotonic()
        if now - last_line >= LINE_INTERVAL_S and done < total:
            print(progress_line(what, done, total, now - started, unit) + noted, flush=True)
            last_line = now
    if done:
        print(progress_line(what, done, total, time.monotonic() - started, unit) + noted, flush=True)


def say(line: str) -> None:
    """Print a line of its own, above the bars that are being shown on a terminal."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(line, file=sys.stdout)
    else:
        print(line, flush=True)


def progress_line(what: str, done: int, total: int, elapsed_s: float, unit: str) -> str:
    """Return e.g. 'train: 75/300 steps (25 %), 4.1 steps/s, 55 s left'; the rate is left out before it is known."""
    units = f"{unit}es" if unit.endswith("ch") else f"{unit}s"
    line = f"{what}: {done}/{total} {units}"
    if total > 0:
        line += f" ({100 * done // total} %)"
    if elapsed_s > 0 and done > 0:
        rate = done / elapsed_s
        line += f", {rate:.3g} {units}/s"
        if done < total:
            line += f", {(total - done) / rate:.0f} s left"
    return line
