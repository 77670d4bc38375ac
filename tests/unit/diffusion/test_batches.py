"""How a batch goes to its device."""

from __future__ import annotations

from dataclasses import fields

import pytest

from loupe.diffusion.batches import Batch


class TensorOfTheHost:
    """Remembers how it was copied."""

    def __init__(self, *, pinned: bool = False) -> None:
        self.pinned = pinned

    def pin_memory(self) -> TensorOfTheHost:
        return TensorOfTheHost(pinned=True)

    def to(self, device: str, *, non_blocking: bool) -> tuple[str, bool, bool]:
        return device, self.pinned, non_blocking


@pytest.mark.parametrize(("device", "goes_on_meanwhile"), [("cuda", True), ("mps", False), ("cpu", False)])
def test_only_pinned_memory_is_copied_while_the_host_goes_on(device: str, goes_on_meanwhile: bool) -> None:
    """A copy that goes on meanwhile may read other memory after its source was given up (pytorch issue 189690)."""
    moved = Batch(*(TensorOfTheHost() for _ in fields(Batch))).to(device)
    copies = {getattr(moved, field.name) for field in fields(Batch)}
    assert copies == {(device, goes_on_meanwhile, goes_on_meanwhile)}
