"""The device policy: which device, which dtype, and why; one place for training, encoding and sampling.

LoRA weights and optimizer state are float32 in every policy; the policy's dtype is that of the frozen base model and of
the arithmetic under autocast. It moves no tensor itself.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loupe.errors import PipelineError

if TYPE_CHECKING:
    import torch

DEVICE_VARIABLE = "LOUPE_DEVICE"
DTYPE_VARIABLE = "LOUPE_DTYPE"
DeviceKind = Literal["cpu", "cuda", "mps"]
DTypeName = Literal["float32", "bfloat16", "float16"]
_KINDS = ("cpu", "cuda", "mps")
_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class DevicePolicy:
    """A device and the dtype to compute in, with the reason for the choice as a sentence.

    A pair that cannot give results is a PipelineError.
    """

    device: DeviceKind
    dtype_name: DTypeName
    reason: str

    def __post_init__(self) -> None:
        if self.device == "mps" and self.dtype_name == "float16":
            raise PipelineError(
                f"float16 on mps gives NaN losses and black images. Unset {DTYPE_VARIABLE}: float32 is chosen there."
            )

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the frozen base model's weights."""
        import torch

        return getattr(torch, self.dtype_name)

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context to run the UNet in while float32 adapter weights meet a base model in another dtype."""
        import torch

        if self.dtype_name == "float32":
            return nullcontext()
        return torch.autocast(self.device, dtype=self.dtype)


def choose_device() -> DevicePolicy:
    """Return the policy for this machine.

    The environment variables LOUPE_DEVICE (cpu, cuda, mps) and LOUPE_DTYPE (float32, bfloat16, float16) override the
    choice. Raises PipelineError when one names something unknown or absent, or they cannot go together.
    """
    asked = os.environ.get(DEVICE_VARIABLE, "").strip()
    policy = _policy(choose_device_kind(), f"{DEVICE_VARIABLE} asks for it" if asked else "the best device there is")
    wanted = os.environ.get(DTYPE_VARIABLE, "").strip().lower()
    if not wanted:
        return policy
    if wanted not in _DTYPES:
        raise PipelineError(f"{DTYPE_VARIABLE} is {wanted!r}; it can be {', '.join(_DTYPES)}, or unset to choose.")
    if policy.dtype_name == "float16" and wanted == "bfloat16":
        raise PipelineError(f"{DTYPE_VARIABLE} asks for bfloat16, which this card lacks. Unset it.")
    return DevicePolicy(policy.device, wanted, f"{policy.device}: {wanted}, because {DTYPE_VARIABLE} asks for it")


def choose_device_kind() -> DeviceKind:
    """Return the device of `choose_device` without waking it: no GPU is touched."""
    wanted = os.environ.get(DEVICE_VARIABLE, "").strip().lower()
    if not wanted:
        return _best_device()
    if wanted not in _KINDS:
        raise PipelineError(
            f"{DEVICE_VARIABLE} is {wanted!r}; it can be {', '.join(_KINDS)}, or unset to choose the best."
        )
    if not _is_available(wanted):
        raise PipelineError(
            f"{DEVICE_VARIABLE} asks for {wanted}, which torch cannot use here. Unset it, or set it to cpu."
        )
    return wanted


def _best_device() -> DeviceKind:
    for kind in ("cuda", "mps"):
        if _is_available(kind):
            return kind
    return "cpu"


def _is_available(kind: str) -> bool:
    import torch

    if kind == "cuda":
        return torch.cuda.is_available()
    if kind == "mps":
        return torch.backends.mps.is_available()
    return True


def _policy(device: DeviceKind, why: str) -> DevicePolicy:
    import torch

    if device == "mps":
        return DevicePolicy("mps", "float32", f"mps: {why}; float32, because float16 gives NaN and black images there")
    if device == "cpu":
        return DevicePolicy("cpu", "float32", f"cpu: {why}; float32, so that results are bit-exact")
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return DevicePolicy("cuda", "bfloat16", f"cuda: {why}; bfloat16, which has float32's range")
    return DevicePolicy("cuda", "float16", f"cuda: {why}; float16, because this card lacks bfloat16")


def make_repeatable(policy: DevicePolicy) -> None:
    """Make kernels choose the same algorithm every time, process-wide.

    On the CPU results are then bit-exact for one machine, library version and thread count. On a GPU, atomics in the
    backward pass of attention and convolution remain: equal within a tolerance.
    """
    import torch

    torch.backends.cudnn.benchmark = False
    if policy.device == "cpu":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False


def device_identity(policy: DevicePolicy) -> str:
    """Return what of this machine can change the last bits of a result, e.g. 'cpu AVX512, threads: 2'.

    Sums are split over the threads, so another thread count rounds otherwise (OMP_NUM_THREADS sets it).
    """
    import torch

    if policy.device == "cuda":
        return f"cuda {torch.cuda.get_device_name()}"
    if policy.device == "cpu":
        return f"cpu {torch.backends.cpu.get_cpu_capability()}, threads: {torch.get_num_threads()}"
    return policy.device
