"""Fixtures that several test folders share."""

import gc
import os
from pathlib import Path

import pytest

from tests.tiny_models import build_tiny_base_model


@pytest.fixture(scope="session")
def tiny_base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable-Diffusion-shaped base model of toy size with random weights; treat it as read-only."""
    return build_tiny_base_model(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def shared_photos() -> Path:
    """The real product photos beside the repository (styles.csv, images/); without them a test is skipped."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "fashion-products"
    folder = Path(os.environ.get("LOUPE_SHARED_PHOTOS", beside))
    if not (folder / "styles.csv").is_file():
        pytest.skip(f"no styles.csv in {folder}; set LOUPE_SHARED_PHOTOS to a folder with styles.csv and images/")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folder that takes longest, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: "tests/pipeline/" not in item.path.as_posix())


def pytest_collection_finish() -> None:
    """Let the garbage collector leave alone what lives to the end: libraries and tests."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let libraries that count what is left over at the end find nothing of the above."""
    gc.unfreeze()
