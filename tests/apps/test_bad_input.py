"""Broken input page by page: every page renders, names what is wrong and the mend, and all else is shown as before."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import streamlit as st
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from dashboard.image_route import PICTURE_ROUTES, picture_url, preview_url
from loupe.run_store import RunStore
from loupe.votes import vote_book
from tests.apps.page_driver import html_of, open_page
from tests.apps.test_states import PAGES
from tests.run_fixture import Shape, age, complete_run, running_run, write_previews
from tests.small_repository import git, two_commits
from tests.unit.test_bad_metrics import DAMAGES, MADE_BY, write_overfitting

SHAPE = Shape(steps=(75, 150), seeds=1, size_px=16)
SHOWN_ON = {  # besides Overview, which tells the state of each stage
    "metrics/checkpoints.csv": {"compare", "report"},
    "metrics/per_image.csv": {"compare"},
    "metrics/overfitting.csv": {"training"},
    "metrics/summary.json": {"experiments"},
    "metrics/train.csv": {"training", "report"},
    "metrics/validation.csv": {"training"},
    "metrics/validation_timesteps.csv": {"training"},
    "metrics/selection.json": {"compare", "training", "report"},
    "metrics/final.json": {"report"},
    "metrics/final.csv": {"report"},
    "params.yaml": {"training", "report", "experiments"},
}
BANNER = re.compile(r'<div class="lp-banner.*?</div>|<ol class="lp-rail">.*?</ol>', re.DOTALL)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = complete_run(tmp_path_factory.mktemp("whole"), SHAPE)
    write_previews(root, SHAPE)
    write_overfitting(root)
    age(root)
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def pages_of(monkeypatch: pytest.MonkeyPatch, root: Path, pages: tuple[str, ...] = PAGES) -> dict[str, str]:
    """What each page says, one after the other in one session, as a reviewer goes through them."""
    app, found = open_page(monkeypatch, root), {}
    for page in pages:
        app.switch_page(f"views/{page}.py").run()
        assert not app.exception, page
        assert not app.error, page
        found[page] = html_of(app)
        assert "Traceback" not in found[page]
        assert str(root) not in found[page]
    return found


def without_banner(html: str) -> str:
    return BANNER.sub("", html).strip()


@pytest.fixture(scope="module")
def as_before(whole: Path) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        st.cache_data.clear()
        return pages_of(monkeypatch, whole)


@pytest.mark.parametrize(("place", "name"), list(enumerate(MADE_BY)))
def test_a_damaged_metrics_file_is_named_on_every_page_and_changes_no_other_one(
    monkeypatch: pytest.MonkeyPatch, root: Path, as_before: dict[str, str], place: int, name: str
) -> None:
    """Each file in another way; tests/unit/test_bad_metrics.py has every file in every way."""
    DAMAGES[place % len(DAMAGES)](root / name)
    for page, html in pages_of(monkeypatch, root).items():
        assert 'lp-banner corrupt"' in html, page
        assert f"<b>{name}</b>" in html
        assert f"dvc repro --force {MADE_BY[name]}" in html
        if page not in {"overview", *SHOWN_ON[name]}:
            assert without_banner(html) == without_banner(as_before[page]), page


def test_parameters_that_do_not_parse_leave_the_pages_as_they_were(
    monkeypatch: pytest.MonkeyPatch, root: Path, as_before: dict[str, str]
) -> None:
    (root / "params.yaml").write_text("<<<<<<< HEAD\ntrain: [\n")
    for page, html in pages_of(monkeypatch, root).items():
        assert 'lp-banner corrupt"' in html, page
        assert "<b>params.yaml</b>" in html
        if page not in {"overview", *SHOWN_ON["params.yaml"]}:
            assert without_banner(html) == without_banner(as_before[page]), page
    assert "<h1>Ship step 150" in html


HALF: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda content: None,
    "zero bytes": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "all but the end": lambda content: content[:-1],
    "no picture": lambda content: b"<html>not found</html>",
}


def break_file(file: Path, how: str) -> None:
    content = HALF[how](file.read_bytes())
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)


@pytest.mark.parametrize("how", HALF)
def test_a_broken_picture_is_a_tile_with_its_reason_and_no_other_tile_changes(
    monkeypatch: pytest.MonkeyPatch, root: Path, as_before: dict[str, str], how: str
) -> None:
    sample = next(s for s in RunStore(root).samples() if s.key == ("red_shoes", 0, 75))
    break_file(root / "data" / "samples" / "red_shoes-0" / "000075.png", how)
    pages = pages_of(monkeypatch, root, PAGES if how == "half" else ("overview", "compare"))
    reason = "is not there" if how == "missing" else "is not what was generated"
    for page in ("overview", "compare"):
        assert f"red_shoes-0/000075.png {reason}. Bring it back: dvc checkout --force data/samples" in pages[page]
        assert pages[page].count('class="lp-img') == as_before[page].count('class="lp-img') - 1
        assert sample.sha256 not in pages[page], "no address that leads nowhere"
    for page in {"training", "data", "experiments"} & set(pages):
        assert pages[page] == as_before[page]
    client = TestClient(Starlette(routes=list(PICTURE_ROUTES)))
    for url in (picture_url(sample.sha256), preview_url(sample.sha256)):
        answer = client.get(url)
        assert answer.status_code == 404
        assert "Bring it back: dvc checkout" in answer.text


@pytest.mark.parametrize("how", sorted(set(HALF) - {"missing"}))
def test_a_broken_picture_of_a_run_at_work_is_a_tile_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    running_run(tmp_path, SHAPE, drawn_steps=(0, 75))
    break_file(tmp_path / "data" / "samples" / "red_shoes-0" / "000075.png", how)
    html = html_of(open_page(monkeypatch, tmp_path, "compare"))
    assert "data/samples/red_shoes-0/000075.png is no whole PNG. Make it anew: dvc repro --force generate" in html
    assert html.count('class="lp-img') == 2 * 5 - 1


@pytest.mark.parametrize("how", HALF)
def test_a_broken_preview_of_training_is_left_out(
    monkeypatch: pytest.MonkeyPatch, root: Path, as_before: dict[str, str], how: str
) -> None:
    break_file(root / ".work" / "previews" / "red_shoes-0" / "75.png", how)
    html = html_of(open_page(monkeypatch, root, "training"))
    assert html.count('class="lp-img') == as_before["training"].count('class="lp-img') - 1


def test_an_experiment_whose_cache_is_gone_keeps_its_parameters_and_names_the_mend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    two_commits(tmp_path)
    shutil.rmtree(tmp_path / ".dvc" / "cache")
    first, second = git(tmp_path, "rev-parse", "HEAD~1"), git(tmp_path, "rev-parse", "HEAD")
    branch = git(tmp_path, "branch", "--show-current")
    html = html_of(open_page(monkeypatch, tmp_path, "experiments", one=first[:7], other=f"{branch} {second[:7]}"))
    after = html[html.index("Two side by side") :]
    assert "train.learning_rate" in after
    assert "<td>30.0</td><td>29.0</td>" in after, "scores are in git, not in the cache"
    assert f"The pictures of {first[:7]} are not here" in after
    assert "dvc fetch --all-commits data/samples" in after
    assert "/img/" not in after


def press(app: AppTest, answer: str) -> AppTest:
    return app.button(key=f"answer-{answer}").click().run()


def test_a_locked_book_of_votes_loses_nothing_in_silence(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr("loupe.votes._BUSY_S", 0.05)
    app = press(open_page(monkeypatch, root, "vote", reviewer="Ann"), "left")
    asked = re.findall(r"/img/(\w+)", html_of(app))
    holder = sqlite3.connect(vote_book(root).file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    app = press(app, "right")
    (error,) = app.error
    assert error.value.startswith("Your answer was not kept. The votes in votes.sqlite cannot be used now")
    assert "close it" in error.value
    assert re.findall(r"/img/(\w+)", html_of(app)) == asked, "the same question still stands"
    holder.execute("ROLLBACK")
    holder.close()
    app = press(app, "right")
    assert not app.error
    assert [vote.choice for vote in vote_book(root).votes()] == ["left", "right"]


def noise(file: Path) -> None:
    file.write_bytes(b"no database" * 500)


def foreign(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE votes (poll TEXT)")
    connection.commit()
    connection.close()


_holders: list[sqlite3.Connection] = []


def locked_for_all(file: Path) -> None:
    """In the journal mode where one who writes shuts out those who read."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("CREATE TABLE x (y)")
    connection.execute("BEGIN EXCLUSIVE")
    _holders.append(connection)


@pytest.mark.parametrize(
    ("damage", "message"),
    [(noise, "cannot be read"), (foreign, "holds something else"), (locked_for_all, "cannot be used now")],
)
def test_a_book_of_votes_that_cannot_be_used_is_named_and_troubles_no_other_page(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    as_before: dict[str, str],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    monkeypatch.setattr("loupe.votes._BUSY_S", 0.05)
    file = vote_book(root).file
    file.parent.mkdir(parents=True)
    damage(file)
    pages = pages_of(monkeypatch, root, PAGES if damage is noise else ("vote", "report"))
    for page in set(pages) - {"vote", "report"}:
        assert pages[page] == as_before[page], page
    assert f"votes.sqlite {message}" in pages["vote"]
    for show in ("Vote", "Results"):
        html = html_of(open_page(monkeypatch, root, "vote", reviewer="Ann", show=show))
        assert f"votes.sqlite {message}" in html
    assert "<h1>Ship step 150" in pages["report"]
    while _holders:
        _holders.pop().close()


def test_two_servers_on_one_run_share_the_votes(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    one, other = (open_page(monkeypatch, root, "vote", reviewer=name) for name in ("Ann", "Bob"))
    again = open_page(monkeypatch, root, "vote", reviewer="Ann")
    press(one, "left")
    press(other, "right")
    press(again, "tie")
    votes = {(vote.reviewer, vote.position): vote.choice for vote in vote_book(root).votes()}
    assert votes == {("Ann", 0): "left", ("Bob", 0): "right"}, "the first answer to a question counts"
    assert not again.exception
    assert not again.error
    assert "1 of " in html_of(again), "the second window goes on with the next question"
