"""The picture routes give original bytes by hash, and nothing else to anyone."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dashboard.image_route import PICTURE_ROUTES, picture_url, preview_url
from loupe.run_samples import SampleView
from loupe.run_store import RunStore
from tests.run_fixture import Shape, complete_run, running_run


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=list(PICTURE_ROUTES)))


def first_sample(root: Path) -> SampleView:
    return next(iter(RunStore(root).samples()))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOUPE_PROJECT", str(tmp_path))
    return complete_run(tmp_path, Shape(steps=(75,), seeds=1, size_px=300, captions=0))


def test_a_picture_comes_as_its_own_bytes_with_safe_headers(client: TestClient, root: Path) -> None:
    sample = first_sample(root)
    answer = client.get(picture_url(sample.sha256))
    assert answer.status_code == 200
    assert answer.content == (root / "data" / "samples" / "black_shoes-0" / "000000.png").read_bytes()
    assert hashlib.sha256(answer.content).hexdigest() == sample.sha256
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "immutable" in answer.headers["cache-control"]
    assert "private" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "name",
    [
        "0" * 64, "", "abc", "..", "../params.yaml", "..%2f..%2fparams.yaml", "%2e%2e%2fparams.yaml", "params.yaml",
        "black_shoes-0/000000.png", "black_shoes-0%2F000000.png", "..\\params.yaml", "%00", "A" * 64, "0" * 63 + "/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("route", ["img", "preview"])
def test_anything_else_is_refused(client: TestClient, root: Path, route: str, name: str) -> None:
    assert client.get(f"/{route}/{name}").status_code in (400, 404)


def test_a_changed_or_removed_file_is_refused_with_the_mend(client: TestClient, root: Path) -> None:
    sample = first_sample(root)
    file = root / "data" / "samples" / "black_shoes-0" / "000000.png"
    file.write_bytes(file.read_bytes()[:50])
    changed = client.get(picture_url(sample.sha256))
    assert (changed.status_code, changed.headers["cache-control"]) == (404, "no-store")
    assert "dvc checkout" in changed.text
    assert client.get(preview_url(sample.sha256)).status_code == 404
    file.unlink()
    assert client.get(picture_url(sample.sha256)).status_code == 404


def test_only_reading_is_allowed(client: TestClient, root: Path) -> None:
    assert client.post(picture_url(first_sample(root).sha256)).status_code == 405


def test_a_preview_is_small_kept_by_content_and_made_once(client: TestClient, root: Path) -> None:
    url = preview_url(first_sample(root).sha256)
    first = client.get(url)
    assert first.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(first.content)).size == (256, 256)
    kept = list((root / ".work" / "thumbnails").rglob("*.webp"))
    assert len(kept) == 1
    kept[0].write_bytes(b"kept")
    assert client.get(url).content == b"kept", "the second time it comes from the work store"


def test_a_picture_without_manifest_is_served_once_a_page_has_shown_it(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dashboard.current_run import current_store

    monkeypatch.setenv("LOUPE_PROJECT", str(running_run(tmp_path)))
    shown = next(sample for sample in current_store().samples() if sample.sha256)
    assert client.get(picture_url(shown.sha256)).status_code == 200
