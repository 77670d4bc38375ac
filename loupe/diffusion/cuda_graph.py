"""Recording work on a GPU as one CUDA graph, which is then replayed: for training and drawing alike.

A host may start the kernels of a pass, of which there are thousands, more slowly than a data-centre GPU computes them.
A replay computes what was recorded, on what then lies in the same buffers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from loupe.diffusion.device_memory import is_out_of_memory
from loupe.errors import PipelineError

if TYPE_CHECKING:
    import torch

GRAPH_VARIABLE = "LOUPE_CUDA_GRAPH"
_WARM_UPS = 3


def graphs_are_wanted() -> bool:
    """Say whether work may be recorded: yes, unless the variable LOUPE_CUDA_GRAPH is `off`."""
    return os.environ.get(GRAPH_VARIABLE, "").strip().lower() != "off"


def record(work: Callable[[], torch.Tensor], *, what: str) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    """Return the graph of `work` and the tensor that every replay fills; `what` names it in a message.

    The work itself is done a few times before, not by the recording. Raises PipelineError when it cannot be recorded.
    An error of a full memory comes through as it is.
    """
    import torch

    # Libraries choose algorithms and take workspaces at their first calls, which must not be recorded.
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            output = work()
    except RuntimeError as error:
        if (full := _full_memory_behind(error)) is not None:
            raise full from None
        raise PipelineError(
            f"{what} could not be recorded as a CUDA graph ({str(error).splitlines()[0]}). "
            f"Set {GRAPH_VARIABLE}=off: it is slower then, with the same result."
        ) from error
    return graph, output


def _full_memory_behind(error: BaseException | None) -> RuntimeError | None:
    """Return the full memory that ended a recording: its end raises an error of its own, in which that one lies."""
    while error is not None:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            return error
        error = error.__context__
    return None
