"""Muon (Jordan et al. 2024): momentum with orthogonalised updates; small nets learn faster with it than with Adam.

Matrices (linear and convolution weights, the latter flattened to outputs x rest) are updated by Muon, everything else
by AdamW.
"""

from collections.abc import Iterable

import torch

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: torch.Tensor, *, iterations: int = 5) -> torch.Tensor:
    """Bring the singular values of a float [R, C] matrix near 1 by a quintic Newton-Schulz iteration."""
    a, b, c = _NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for matrices and kernels: Nesterov momentum, orthogonalised, scaled by sqrt(max(1, R / C))."""

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "precision": precision})

    @torch.no_grad()
    def step(self) -> None:
        """Apply one update."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                direction = parameter.grad.lerp(state["momentum"], group["momentum"])
                matrix = direction.flatten(1).to(group["precision"])
                scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                parameter.add_(orthogonalise(matrix).to(parameter.dtype).view_as(parameter), alpha=-group["lr"] * scale)


class MixedOptimiser:
    """Muon for the inner matrices and AdamW for the rest, driven as one.

    `rates` (muon, adam) are multiplied by the factor given to `step`. Parameters whose name holds one of `plain` go
    to AdamW though they are
    matrices: layers that touch pixels, latents or tokens. `precision` is that of the orthogonalisation (bfloat16
    suffices and is
    faster for wide layers).
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        rates: tuple[float, float],
        plain: tuple[str, ...],
        weight_decay: float,
        precision: torch.dtype = torch.float32,
    ) -> None:
        named = list(module.named_parameters())
        inner = [p for name, p in named if p.ndim >= 2 and not any(part in name for part in plain)]
        chosen = {id(parameter) for parameter in inner}
        rest = [p for _, p in named if id(p) not in chosen]
        self.rates = rates
        self.parts = (
            Muon(inner, lr=rates[0], precision=precision),
            torch.optim.AdamW(rest, lr=rates[1], betas=(0.9, 0.99), weight_decay=weight_decay, fused=True),
        )

    def step(self, factor: float) -> None:
        """Update with both learning rates times `factor`, then forget the gradients."""
        for part, rate in zip(self.parts, self.rates, strict=True):
            for group in part.param_groups:
                group["lr"] = rate * factor
            part.step()
            part.zero_grad()
