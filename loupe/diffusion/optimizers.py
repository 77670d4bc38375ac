"""The optimizers that train an adapter, and any optimizer's state as named tensors.

Packages that are not part of Loupe are imported only when they are chosen. It takes no step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from loupe.diffusion.adapter import MAGNITUDE
from loupe.diffusion.text_adapter import TEXT_PREFIX
from loupe.errors import PipelineError

if TYPE_CHECKING:
    import torch

OptimizerName = Literal["adamw", "adamw_8bit", "prodigy"]
OptimizerState = dict[str, "torch.Tensor"]
"""`<parameter>/<quantity>` and `group <n>/<quantity>`; a Python number is a tensor whose name ends in _NUMBER, and
quantities within one (as bitsandbytes keeps its moments) are `<quantity>::<quantity>`."""

NUMBERS_KEPT: dict[OptimizerName, int] = {"adamw": 2, "adamw_8bit": 2, "prodigy": 4}
"""float32 numbers that an optimizer keeps of each parameter. Prodigy's: two moments, the sum s and where it began; of
the moments in 8 bits it is what they take at most, since small tensors stay in 32."""
_PACKAGES = {"adamw_8bit": "bitsandbytes", "prodigy": "prodigyopt"}
_NUMBER = ":number"
_WITHIN = "::"
LEARNING_RATE_SHARE = "lr_share"
"""Entry of a parameter group: its learning rate over that of the schedule; absent where they are the same."""
_CONSTANTS = {"params", "lr", "eps", "weight_decay", LEARNING_RATE_SHARE}
"""Entries of a parameter group that the settings decide at every start."""


def optimizer_libraries(name: OptimizerName, *, device: str) -> tuple[str, ...]:
    """Return the distributions beside torch that the optimizer is made of.

    Raises PipelineError when one is not installed, or the optimizer cannot run on `device`.
    """
    package = _PACKAGES.get(name)
    if package is None:
        return ()
    if find_spec(package) is None:
        raise PipelineError(
            f"train.optimizer is {name}, which needs the package {package}, and that is not installed. "
            f"Run: pip install {package}, or set train.optimizer to adamw."
        )
    if name == "adamw_8bit" and device != "cuda":
        raise PipelineError(
            f"train.optimizer is adamw_8bit, which needs CUDA; this run is on {device}. Set train.optimizer to adamw."
        )
    return (package,)


def learning_rate_note(name: OptimizerName, learning_rate: float) -> str | None:
    """Return a sentence when the learning rate is unusual for the optimizer; None otherwise."""
    if name == "prodigy" and learning_rate != 1.0:
        return (
            f"prodigy finds the step size itself and multiplies it by train.learning_rate, which is {learning_rate:g}; "
            f"1.0 is usual"
        )
    return None


def make_optimizer(
    name: OptimizerName,
    parameters: Mapping[str, torch.nn.Parameter],
    *,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float,
    text_learning_rate: float | None = None,
) -> torch.optim.Optimizer:
    """Return an optimizer over the adapter's parameters (keyed as AdaptedModels does).

    The text encoder's learn at `text_learning_rate` where it is given (see set_learning_rate).

    Weight decay pulls the A and B matrices to zero, so towards the base model. DoRA's magnitudes do not decay: zero
    would pull the base weights themselves away.
    """
    import torch

    if text_learning_rate is None or text_learning_rate == learning_rate:
        groups = _groups(parameters, weight_decay)
    else:
        of_unet = {key: p for key, p in parameters.items() if not key.startswith(TEXT_PREFIX)}
        of_text = {key: p for key, p in parameters.items() if key.startswith(TEXT_PREFIX)}
        share = {LEARNING_RATE_SHARE: text_learning_rate / learning_rate}
        groups = [*_groups(of_unet, weight_decay), *(group | share for group in _groups(of_text, weight_decay))]
    shared: dict[str, Any] = {"lr": learning_rate, "betas": betas, "eps": epsilon}
    if name == "adamw":
        return torch.optim.AdamW(groups, fused=True, **shared)
    if name == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups, **shared)
    from prodigyopt import Prodigy

    # safeguard_warmup: without it the small first rates of a warm-up raise the estimated step size for good.
    return Prodigy(groups, decouple=True, use_bias_correction=True, safeguard_warmup=True, **shared)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of the step to come, in every group in proportion to its own."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get(LEARNING_RATE_SHARE, 1.0)


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]) -> OptimizerState:
    """Return a copy of everything the optimizer carries from step to step, on the CPU."""
    content = optimizer.state_dict()
    keys = _keys(optimizer, parameters)
    owned = {keys[index]: values for index, values in content["state"].items()}
    for number, group in enumerate(content["param_groups"]):
        owned[f"group {number}"] = {what: value for what, value in group.items() if what not in _CONSTANTS}
    return dict(_packed((f"{owner}/{what}", value) for owner, of in owned.items() for what, value in of.items()))


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, torch.nn.Parameter],
    state: Mapping[str, torch.Tensor],
) -> None:
    """Go on from a state of optimizer_state, which is copied."""
    content = optimizer.state_dict()
    content["state"] = {}
    indices = {key: index for index, key in enumerate(_keys(optimizer, parameters))}
    for name, tensor in state.items():
        owner, _, what = name.rpartition("/")
        value = tensor.item() if what.endswith(_NUMBER) else tensor.clone()
        if owner in indices:
            owned = content["state"].setdefault(indices[owner], {})
        else:
            owned = content["param_groups"][int(owner.removeprefix("group "))]
        *outer, what = what.removesuffix(_NUMBER).split(_WITHIN)
        for part in outer:
            owned = owned.setdefault(part, {})
        owned[what] = value
    optimizer.load_state_dict(content)


def _groups(parameters: Mapping[str, torch.nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    magnitudes = [parameter for key, parameter in parameters.items() if key.endswith(MAGNITUDE)]
    matrices = [parameter for key, parameter in parameters.items() if not key.endswith(MAGNITUDE)]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": weight_decay}]
    return [*groups, {"params": magnitudes, "weight_decay": 0.0}] if magnitudes else groups


def _keys(optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]) -> list[str]:
    """Return the parameters' keys in the order in which the optimizer numbers them."""
    names = {id(parameter): key for key, parameter in parameters.items()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _packed(entries: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, torch.Tensor]]:
    import torch

    for name, value in entries:
        if isinstance(value, torch.Tensor):
            yield name, value.detach().cpu().clone()
        elif isinstance(value, int | float) and not isinstance(value, bool):
            dtype = torch.int64 if isinstance(value, int) else torch.float64
            yield f"{name}{_NUMBER}", torch.tensor(value, dtype=dtype)
        elif isinstance(value, Mapping):
            yield from _packed((f"{name}{_WITHIN}{part}", of_part) for part, of_part in value.items())
