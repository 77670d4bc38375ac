"""Two servers on one run at once, as two people on one machine start them: same pictures, and no vote is lost."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dashboard.image_route import picture_url, preview_url
from loupe.run_store import RunStore
from loupe.votes import vote_book
from tests.run_fixture import Shape, complete_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_run(tmp_path_factory.mktemp("shared"), Shape(steps=(75, 150), seeds=1, size_px=300))


@pytest.fixture(scope="module")
def addresses(root: Path, serve: Callable[[Path], str], browser: Any) -> tuple[str, str]:
    return serve(root), serve(root)


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def test_both_serve_the_files_bytes_and_keep_each_preview_once(root: Path, addresses: tuple[str, str]) -> None:
    store = RunStore(root)
    hashes = sorted({sample.sha256 for sample in store.samples() if sample.sha256})
    urls = [f"{address}{preview_url(sha256)}" for sha256 in hashes for address in addresses]
    with ThreadPoolExecutor(8) as pool:
        previews = dict(zip(urls, pool.map(fetched, urls), strict=True))
    for sha256 in hashes:
        one, other = (previews[f"{address}{preview_url(sha256)}"] for address in addresses)
        assert one == other
        assert one[:4] == b"RIFF"
        originals = {fetched(f"{address}{picture_url(sha256)}") for address in addresses}
        assert originals == {store.sample_file(sha256).read_bytes()}
    for address in addresses:
        assert fetched(f"{address}{preview_url(hashes[0])}") == previews[f"{address}{preview_url(hashes[0])}"]
    kept = [path for path in (root / ".work" / "thumbnails").rglob("*") if path.is_file()]
    assert len(kept) == len(hashes), "one file for each picture, and nothing half-written beside them"


def test_two_reviewers_vote_at_once_through_two_servers(page: Any, root: Path, addresses: tuple[str, str]) -> None:
    pages = {"Ann": page, "Bob": page.context.new_page()}
    for (name, own), address in zip(pages.items(), addresses, strict=True):
        own.goto(f"{address}/vote?reviewer={name}")
    for count, key in enumerate(("1", "2", "0"), start=1):
        for own in pages.values():
            own.wait_for_selector(".lp-pair img")
            own.keyboard.press(key)
        for own in pages.values():
            own.wait_for_selector(f"text={count} of ")
    votes = [(vote.reviewer, vote.choice) for vote in vote_book(root).votes()]
    assert sorted(votes) == sorted((name, choice) for name in pages for choice in ("left", "right", "tie"))
