"""Fixtures that several files share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def two_cores() -> Iterator[None]:
    """Two threads, as on any machine; `make test` gives each of its processes one, because they share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
