"""One run of each kind for all tests of pages, which never write into them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run_fixture import RUNS


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    roots = {kind: tmp_path_factory.mktemp(kind) for kind in RUNS}
    for kind, build in RUNS.items():
        build(roots[kind])
    return roots
