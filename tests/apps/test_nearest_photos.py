"""The pairs of picture and training photo that are shown: the nearest of the run, and nothing where none is known."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from loupe.atomic_io import write_csv
from loupe.nearest_html import MOST_PAIRS, nearest_pairs, nearest_table
from loupe.report_page import report_html
from loupe.run_store import RunStore
from tests.apps.page_driver import html_of, open_page
from tests.run_fixture import NASTY, Shape, complete_run

HEADING = "<h2>Nearest training photos</h2>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run whose rows of per_image.csv lie ever nearer to photos, the last of them flagged; the first is unknown."""
    complete_run(tmp_path, Shape(steps=(75, 150), seeds=2, size_px=16))
    rows = rows_of(tmp_path)
    for place, row in enumerate(rows[1:], start=1):
        near = {"nearest_train": f"photo<{place}>", "nearest_train_distance": 1000 - place, "memorised": 0}
        row.update(near)
    rows[-1]["memorised"] = 1
    write_csv(tmp_path / "metrics" / "per_image.csv", list(rows[1]), rows)
    return tmp_path


def rows_of(root: Path) -> list[dict[str, object]]:
    with (root / "metrics" / "per_image.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_nearest_pairs_of_all_checkpoints_come_nearest_first(root: Path) -> None:
    rows = rows_of(root)
    assert len(rows) > MOST_PAIRS + 1
    pairs = nearest_pairs(RunStore(root))
    nearest = rows[: -MOST_PAIRS - 1 : -1]
    assert [(str(p.step), p.file, p.photo) for p in pairs] == [
        (row["step"], row["file"], row["nearest_train"]) for row in nearest
    ]
    assert [pair.distance for pair in pairs] == [float(str(row["nearest_train_distance"])) for row in nearest]
    assert [pair.flagged for pair in pairs] == [True, *[False] * (MOST_PAIRS - 1)]
    assert {pair.step for pair in pairs} == {0, 75, 150}


def test_overview_and_report_show_them_escaped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = nearest_pairs(RunStore(root))
    table = nearest_table(pairs)
    assert table.count("<tr>") == MOST_PAIRS + 1
    assert '<td class="text">photo&lt;' in table
    assert '<td class="text">photo<' not in table
    assert NASTY in {pair.prompt for pair in pairs}
    assert NASTY not in table
    assert table.count(">flagged<") == 1
    for html in (report_html(RunStore(root)), html_of(open_page(monkeypatch, root, "overview"))):
        assert HEADING in html
        assert table in html


def test_a_run_that_names_no_photos_shows_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete_run(tmp_path, Shape(steps=(75,), seeds=1, size_px=16))
    assert nearest_pairs(RunStore(tmp_path)) == ()
    assert nearest_table(()) == ""
    for html in (report_html(RunStore(tmp_path)), html_of(open_page(monkeypatch, tmp_path, "overview"))):
        assert HEADING not in html
