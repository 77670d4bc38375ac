"""Fixtures that several test folders share."""

from pathlib import Path

import pytest

from tests.tiny_models import build_tiny_base_model


@pytest.fixture(scope="session")
def tiny_base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable-Diffusion-shaped base model of toy size with random weights; treat it as read-only."""
    return build_tiny_base_model(tmp_path_factory.mktemp("tiny") / "base")
