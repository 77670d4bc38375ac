"""The exponential moving average of an adapter's weights over the steps of a run.

It knows no optimizer and no file; the trainer says when a step is done.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch


class MovingAverage:
    """Averaged copies of `parameters`, keyed alike, on their device in float32; they start as the weights are now."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], *, decay: float) -> None:
        self.decay = decay
        self.weights = {key: parameter.detach().clone() for key, parameter in parameters.items()}

    def update(self, parameters: Mapping[str, torch.nn.Parameter], *, step: int) -> None:
        """Take in the weights after optimizer step `step`, counted from 1."""
        averages = list(self.weights.values())
        present = [parameters[key].detach() for key in self.weights]
        torch._foreach_lerp_(averages, present, 1 - decay_at(step, self.decay))

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Go on from averages that were copied out of `weights` earlier."""
        for key, average in self.weights.items():
            average.copy_(weights[key])


def decay_at(step: int, decay: float) -> float:
    """Return the decay at a step: it rises to `decay`, so that the untrained weights are not in the average.

    The rule of diffusers' EMAModel: 0 at step 1, then step / (9 + step) as long as that is less than `decay`.
    """
    return min(decay, step / (9 + step)) if step > 1 else 0.0
