"""How every scoring network is run, and how one that was never trained is told. It holds no network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.errors import PipelineError

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def inference() -> Iterator[None]:
    """Run without gradients and, on a GPU, with full float32 products: TF32 would move features by 1e-3."""
    import torch

    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def require_trained(network: nn.Module, path: Path) -> None:
    """Raise PipelineError when every normalisation layer still holds its initial ones and zeros.

    A randomly initialised network gives features all the same, and with them scores that look perfect; the first
    step of any training moves these weights.
    """
    import torch
    from torch import nn

    kinds = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d)
    norms = [m for m in network.modules() if isinstance(m, kinds)]
    affine = [m for m in norms if m.weight is not None]
    untouched = [bool(torch.all(m.weight == 1)) and (m.bias is None or bool(torch.all(m.bias == 0))) for m in affine]
    if affine and all(untouched):
        raise PipelineError(
            f"{path} holds a network that was never trained (every normalisation layer is as it was created). "
            "Its scores would mean nothing. Point evaluate at trained weights; for the demo: restore data/demo from "
            "git, or run: make demo-kit"
        )
