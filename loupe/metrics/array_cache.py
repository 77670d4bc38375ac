"""Work on arrays that is asked for again and again, done once: what real photos alone decide, distances of one step.

Arrays are told apart by identity, so a run that keeps its arrays and never changes them in place pays once, and nothing
has to be handed around. It computes nothing itself, and keeps no array alive but the results.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial, wraps
from typing import TypeVar

from numpy.typing import NDArray

Result = TypeVar("Result")


def once_per_arrays(*, keep: int) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Return a decorator for functions of arrays: the results for the latest `keep` groups of arrays are kept.

    A result goes when one of its arrays does. Neither arrays nor results may be changed in place.
    """

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        kept: dict[tuple[int, ...], tuple[list[weakref.ref[NDArray]], Result]] = {}

        def forget(key: tuple[int, ...], _: weakref.ref[NDArray]) -> None:
            kept.pop(key, None)

        @wraps(function)
        def cached(*arrays: NDArray) -> Result:
            key = tuple(map(id, arrays))
            known = kept.pop(key, None)
            if known is None:
                result = function(*arrays)
                # An identity is free for another array only after this callback, so no stale result is ever met.
                known = ([weakref.ref(array, partial(forget, key)) for array in arrays], result)
            kept[key] = known
            while len(kept) > keep:
                del kept[next(iter(kept))]
            return known[1]

        return cached

    return decorate
