"""Whether torch.compile can work on this machine: it needs a C++ compiler for a CPU, and Triton for a GPU.

Found out by compiling something small, before the minutes that the UNet takes.
"""

from __future__ import annotations

import time
from functools import cache

from loupe.errors import PipelineError


@cache
def require_compiler(device: str) -> None:
    """Raise PipelineError when torch.compile does not work on `device`; it takes some seconds, once per process."""
    import torch
    from torch._dynamo.exc import TorchDynamoException

    never_seen_before = time.time_ns() / 1e9  # or a cache on the disk could answer without a compiler

    def small(numbers: torch.Tensor) -> torch.Tensor:
        return numbers.sin() * never_seen_before

    try:
        torch.compile(small, dynamic=False)(torch.ones(64, device=device))
    except TorchDynamoException as error:
        reason = str(error).splitlines()[0]
        needed = (
            "Triton and a C compiler"
            if device == "cuda"
            else "a C++ compiler (on Debian and Ubuntu: apt-get install g++)"
        )
        raise PipelineError(
            f"train.compile is true, and torch.compile does not work here: {reason} It needs {needed}. Install that, "
            f"or set train.compile to false: slower on a GPU, with the same result but for rounding."
        ) from None
