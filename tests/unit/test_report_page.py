"""The report: whole in one file, the same bytes each time, honest about what is missing, and inert."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from loupe import cli
from loupe.errors import PipelineError
from loupe.report_page import report_html
from loupe.run_store import RunStore
from tests.run_fixture import NASTY, RUNS, Shape, complete_run, write_ends, write_selection

SHAPE = Shape(steps=(75, 150), seeds=2, size_px=16)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_run(tmp_path_factory.mktemp("run"), SHAPE)


@pytest.fixture(scope="module")
def html(root: Path) -> str:
    return report_html(RunStore(root))


class Collector(HTMLParser):
    """Every tag with its attributes, and whether the tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "path", "rect", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_needs_nothing_from_outside_and_runs_nothing(html: str) -> None:
    collector = Collector()
    collector.feed(html)
    assert collector.open == []
    names = {tag for tag, _ in collector.tags}
    assert names.isdisjoint({"script", "link", "iframe", "object", "form"})
    for tag, attributes in collector.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href", "srcset", "xlink:href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "default-src 'none'" in html
    assert "url(" not in html


def test_it_holds_decision_scores_curves_final_result_and_provenance(html: str) -> None:
    for expected in (
        "<h1>Ship step 150</h1>", "12.9 against", "demo-classifier", "−61.3 to base", "22 against 23 photos",
        "Final result on the test split", "16 test prompts", "Where it comes from", f"SHA-256 {'b' * 64}",
        f"SHA-256 {150:064x}", "params.yaml",
    ):  # fmt: skip
        assert expected in html, expected
    assert html.count("<svg") == 5
    assert "nan" not in re.sub(r"[\w+/=]{60,}", "", html.lower()).replace("finance", "")


def test_a_gate_that_is_failed_on_the_test_split_is_a_warning(tmp_path: Path, html: str) -> None:
    write_ends(complete_run(tmp_path, SHAPE), SHAPE, gates_failed="centred_ok 0.81, required 0.9")
    said = (
        "On the test split, with new prompts and seeds, it fails gates that it passed before: centred_ok 0.81, required"
    )
    assert f'<p class="warn">{said} 0.9.</p>' in report_html(RunStore(tmp_path))
    assert "On the test split, with" not in html


def test_the_pictures_are_the_files_own_bytes(html: str, root: Path) -> None:
    shown = [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([^\"]+)", html)]
    folder = root / "data" / "samples"
    assert shown[0] == (folder / "black_shoes-0" / "000000.png").read_bytes()
    assert shown[1] == (folder / "black_shoes-0" / "000150.png").read_bytes()
    assert len(shown) == 2 * 5


def test_the_reviewer_chooses_the_prompts(root: Path) -> None:
    html = report_html(RunStore(root), prompt_ids=["red_shoes", "../../etc"])
    assert html.count("data:image/png") == 2
    assert "red casual shoes" in html
    assert "black casual shoes" not in html


def test_it_is_the_same_each_time_and_shows_prompts_literally(html: str, root: Path) -> None:
    assert report_html(RunStore(root)) == html
    assert NASTY not in html
    assert "a &lt;script&gt;alert(1)&lt;/script&gt;" in html


@pytest.mark.parametrize("kind", RUNS)
def test_every_state_gives_a_report_or_says_what_comes_next(kind: str, tmp_path: Path) -> None:
    root = RUNS[kind](tmp_path)
    if kind in ("absent", "partial", "running"):
        with pytest.raises(PipelineError, match="dvc repro select"):
            report_html(RunStore(root))
        return
    html = report_html(RunStore(root))
    assert ('class="warn"' in html) == (kind != "complete")
    assert str(root) not in html


def test_no_clear_winner_is_said(tmp_path: Path) -> None:
    write_selection(complete_run(tmp_path, SHAPE), SHAPE, verdict="no clear winner")
    html = report_html(RunStore(tmp_path))
    assert "<h1>No clear winner</h1>" in html
    assert "★ Recommended" not in html


def test_the_command_writes_the_same_file(root: Path, html: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(root)
    cli.main(["report", "--output", str(tmp_path / "decision.html")])
    assert (tmp_path / "decision.html").read_text(encoding="utf-8") == html
