"""Rows of an array in parts of a fixed size, so that work on all of them takes no more memory where they are many."""

from __future__ import annotations

from collections.abc import Iterator

ROWS_AT_ONCE = 256


def row_parts(n_rows: int) -> Iterator[slice]:
    """Yield the slices that cover rows 0 to n_rows - 1 in order."""
    return (slice(start, min(start + ROWS_AT_ONCE, n_rows)) for start in range(0, n_rows, ROWS_AT_ONCE))
