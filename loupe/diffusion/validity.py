"""Whether a generated picture can be judged at all, decided where it is made, before conversion hides the evidence.

A NaN becomes a plain 0 when it is converted to uint8, so only the tensors tell it from a dark picture. It scores
nothing: an invalid picture is recorded with its reason and left out of every score.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

InvalidReason = Literal["not finite", "black", "flat", "wrong size"]
BLACK_BELOW_MEAN = 8.0
FLAT_BELOW_SD = 4.0


def are_finite(*tensors: torch.Tensor) -> torch.Tensor:
    """Return whether no value is NaN or infinite, as a bool scalar on the tensors' device, without waiting for it."""
    return torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()


def pixel_problem(pixels_HWC: NDArray[np.uint8], *, width_px: int, height_px: int) -> InvalidReason | None:
    """Return why an RGB picture, uint8 [0, 255], is no usable sample, or None.

    black: its mean is below 8. flat: every channel's standard deviation over the picture is below 4 (per channel,
    because a plain red area has a large spread between its channels and still shows nothing).
    """
    if pixels_HWC.dtype != np.uint8 or pixels_HWC.shape != (height_px, width_px, 3):
        return "wrong size"
    if pixels_HWC.mean() < BLACK_BELOW_MEAN:
        return "black"
    if pixels_HWC.std(axis=(0, 1)).max() < FLAT_BELOW_SD:
        return "flat"
    return None
