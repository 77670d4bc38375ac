"""What happens when a device's memory is full."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from loupe.diffusion.device_memory import DeviceFull, Portions, is_out_of_memory, told_when_full

FULL = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
)


@pytest.mark.parametrize("error", FULL, ids=["cuda", "cublas", "mps", "cpu"])
def test_a_full_memory_is_told_with_advice(error: RuntimeError) -> None:
    assert is_out_of_memory(error)
    with (
        pytest.raises(DeviceFull, match=r"^The memory of cuda is full\. Do less\.$"),
        told_when_full("cuda", lambda: "Do less."),
    ):
        raise error


def test_the_cpu_s_own_message_is_known() -> None:
    with pytest.raises(DeviceFull), told_when_full("cpu", lambda: ""):
        torch.empty(1 << 55)


@pytest.mark.parametrize("text", ["", "shape mismatch", "an error\nthat mentions out of memory below"])
def test_other_errors_come_through(text: str) -> None:
    with (
        pytest.raises(RuntimeError, match=text.partition("\n")[0]) as raised,
        told_when_full("cuda", lambda: "Do less."),
    ):
        raise RuntimeError(text)
    assert not isinstance(raised.value, DeviceFull)


def fitting(limit: int, tried: list[tuple[int, int]]):
    def work(start: int, stop: int) -> list[int]:
        tried.append((start, stop))
        if stop - start > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(start, stop))

    return work


def test_portions_shrink_once_and_every_result_comes_in_order() -> None:
    portions, tried = Portions(8, "cuda", ""), []
    assert portions.results(8, fitting(3, tried)) == list(range(8))
    assert tried == [(0, 8), (0, 4), (0, 2), (2, 4), (4, 6), (6, 8)]
    tried.clear()
    assert portions.results(5, fitting(3, tried)) == list(range(5))
    assert tried == [(0, 2), (2, 4), (4, 5)]


def test_not_even_one_is_said_with_advice() -> None:
    with pytest.raises(DeviceFull, match=r"The memory of mps is full\. Lower it\."):
        Portions(8, "mps", "Lower it.").results(8, fitting(0, []))


def test_on_the_cpu_the_number_together_is_never_changed() -> None:
    tried: list[tuple[int, int]] = []
    with pytest.raises(torch.OutOfMemoryError):
        Portions(8, "cpu", "").results(8, fitting(3, tried))
    assert tried == [(0, 8)]


def test_another_error_is_not_tried_again() -> None:
    def work(start: int, stop: int) -> list[int]:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        Portions(8, "cuda", "").results(8, work)


def test_the_tensors_of_an_attempt_are_gone_before_the_next() -> None:
    """An exception's traceback holds the frames, and so the tensors, of the attempt."""
    held: list[weakref.ref[torch.Tensor]] = []

    def work(start: int, stop: int) -> list[int]:
        assert all(reference() is None for reference in held)
        large = torch.zeros(8)
        held.append(weakref.ref(large))
        if stop - start > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [start]

    gc.disable()
    try:
        assert Portions(4, "cuda", "").results(2, work) == [0, 1]
    finally:
        gc.enable()
