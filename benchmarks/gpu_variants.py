"""Ways to run the same training step on a GPU, side by side: which of them pays is for the card to say.

Training takes none of these by itself; a variant that is faster here is a reason to build it in. bench_gpu.py measures
each in turn, with and without torch.compile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from loupe.diffusion import trainer_start

_OTHERS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def cudnn_attention() -> AbstractContextManager[None]:
    """Take cuDNN's attention wherever it can be had, and torch's own choice elsewhere (heads of over 128 features)."""
    return sdpa_kernel([SDPBackend.CUDNN_ATTENTION, *_OTHERS], set_priority=True)


@contextmanager
def chosen_convolutions() -> Iterator[None]:
    """Let cuDNN time its convolutions and keep the fastest, instead of asking its rule of thumb."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def channels_last() -> Iterator[None]:
    """Lay out the UNet's weights, and with them its activations, as [B, H, W, C]."""
    load = trainer_start.load_unet

    def load_channels_last(*arguments: Any, **options: Any) -> Any:
        return load(*arguments, **options).to(memory_format=torch.channels_last)

    with mock.patch.object(trainer_start, "load_unet", load_channels_last):
        yield


@contextmanager
def all_of_them() -> Iterator[None]:
    """All of the above together."""
    with cudnn_attention(), chosen_convolutions(), channels_last():
        yield


VARIANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "as_it_is": nullcontext,
    "cudnn_attention": cudnn_attention,
    "chosen_convolutions": chosen_convolutions,
    "channels_last": channels_last,
    "all_of_them": all_of_them,
}
