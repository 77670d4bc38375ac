"""What a recording says when it cannot be made, with stand-ins for the GPU's part of torch."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from loupe.diffusion.cuda_graph import GRAPH_VARIABLE, record
from loupe.diffusion.device_memory import is_out_of_memory
from loupe.errors import PipelineError


@contextmanager
def recording_that_ends_with_an_error_of_its_own(_graph: object):
    try:
        yield
    finally:
        raise RuntimeError("operation failed due to a previous error during capture")


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SimpleNamespace(wait_stream=lambda _other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", recording_that_ends_with_an_error_of_its_own)


def failing_when_recorded(error: RuntimeError):
    calls = []

    def work() -> torch.Tensor:
        calls.append(None)
        if len(calls) > 3:
            raise error
        return torch.zeros(())

    return work


@pytest.mark.parametrize(
    "full",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when")],
    ids=["cuda", "cublas"],
)
def test_a_memory_that_is_full_while_recording_is_told_as_that(stand_ins: None, full: RuntimeError) -> None:
    """Else the portions are not halved, and the reader is told to switch recording off."""
    with pytest.raises(RuntimeError) as caught:
        record(failing_when_recorded(full), what="Drawing")
    assert caught.value is full
    assert is_out_of_memory(caught.value)


def test_anything_else_names_the_switch(stand_ins: None) -> None:
    with pytest.raises(PipelineError, match=rf"^Drawing could not be recorded .*{GRAPH_VARIABLE}=off"):
        record(failing_when_recorded(RuntimeError("operation not permitted when stream is capturing")), what="Drawing")
