"""A thread that writes into a run again and again while a test reads it, as a busy pipeline would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread


@contextmanager
def written_by(write: Callable[[Event], None]) -> Iterator[None]:
    """Call `write` in another thread until the block ends; its errors end the test.

    It is given the event that is set then, to return early.
    """
    stop, errors = Event(), []

    def work() -> None:
        try:
            while not stop.is_set():
                write(stop)
        except Exception as error:
            errors.append(error)

    writer = Thread(target=work)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()
    assert not errors
