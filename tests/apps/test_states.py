"""Every page on a run in every state, in a git repository: what it says, what it shows, and no traceback ever."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from loupe.atomic_io import write_csv
from loupe.paths import ProjectPaths
from loupe.records import TrainRow
from tests.apps.page_driver import html_of, open_page
from tests.run_fixture import RUNS, Shape, hold_lock, partial_run

PAGES = ("overview", "compare", "vote", "training", "data", "experiments", "report")


def training_run(root: Path, shape: Shape = Shape()) -> Path:  # noqa: B008 - frozen
    """`train` is at work under DVC: half of its curve is there, its manifest is not."""
    paths = ProjectPaths(partial_run(root, shape))
    (paths.checkpoints / "manifest.json").unlink()
    rows = [
        TrainRow(step=step, loss=0.1, loss_smoothed=0.1, learning_rate=1e-3, grad_norm=0.4).model_dump()
        for step in range(1, 151)
    ]
    write_csv(paths.metrics / "train.csv", list(TrainRow.model_fields), rows)
    hold_lock(root, paths.checkpoints, pid=os.getpid())
    return root


BUILDERS: dict[str, Callable[[Path], Path]] = {**RUNS, "training": training_run}
BANNERS = {
    "absent": ('lp-banner absent"', "There is no run here yet.", "<code>dvc repro</code>"),
    "partial": ('lp-banner partial"', "Not finished: generate, evaluate, select, confirm, export are still to come."),
    "training": ('lp-banner running"', "Stage train is at work; the page follows it.", "150 of 300 steps"),
    "running": ('lp-banner running"', "Stage generate is at work; the page follows it.", "20 of 50 pictures"),
    "stale": ('lp-banner stale"', "train.learning_rate was 0.002, is 0.0005", "<code>dvc repro</code>"),
    "corrupt": (
        'lp-banner corrupt"', "3 findings cannot be believed; everything else is shown.",
        "<b>metrics/selection.json</b> cannot be read", "dvc repro --force select",
        "<b>metrics/checkpoints.csv</b> line 2, column fd_demo:", "dvc repro --force evaluate",
    ),
    "complete": (),
}  # fmt: skip
UNTRAINED, TRAINED = "<h1>Nothing has been trained yet</h1>", "<h1>Trained for 300 steps</h1>"
NO_VOTE, A_VOTE = "<h1>Nothing to vote on yet</h1>", "<h1>Which picture is better?</h1>"
EXAMPLES = "<h1>210 train, 45 val, 45 test examples</h1>"
NO_EXPERIMENTS = "<h1>Commits, no experiments yet</h1>"
NO_REPORT, UNDECIDED, SHIP = "<h1>Nothing to report yet</h1>", "<h1>No recommendation yet</h1>", "<h1>Ship step 300"
SAYS: dict[str, dict[str, tuple[str, ...]]] = {
    "overview": {
        "absent": ("<h1>Nothing to review yet</h1>",), "partial": (UNDECIDED,), "training": (UNDECIDED,),
        "running": (UNDECIDED, 'class="running"', "lp-img"), "stale": (SHIP, "from an earlier run", "<b>12.9</b>"),
        "corrupt": (UNDECIDED, "<b>47.5</b>", "lp-img"), "complete": (SHIP, "<b>12.9</b>", "lp-img", "<b>75.0</b>"),
    },
    "compare": {
        "absent": ("<h1>No pictures to compare yet</h1>", "<code>dvc repro</code>"), "partial": ('lp-tile waiting"',),
        "training": ("generate",), "running": ('lp-tile waiting"', "lp-img"), "stale": ("lp-img", "Recommended"),
        "corrupt": ("red_shoes-0/000150.png is not there", "dvc checkout --force data/samples", "lp-img"),
        "complete": ("lp-img", "Recommended"),
    },
    "vote": {
        "absent": (NO_VOTE, "dvc repro generate"), "partial": (NO_VOTE,), "training": (NO_VOTE,),
        "running": (NO_VOTE,), "stale": (A_VOTE,), "corrupt": (A_VOTE,), "complete": (A_VOTE,),
    },
    "training": {
        "absent": (UNTRAINED, "dvc repro train"), "partial": (TRAINED,),
        "training": ("<h1>Training, step 150 of 300</h1>",), "running": (TRAINED,), "stale": (TRAINED,),
        "corrupt": (TRAINED,), "complete": (TRAINED,),
    },
    "data": {
        "absent": ("<h1>No dataset yet</h1>", "dvc repro prepare"), "partial": (EXAMPLES,), "training": (EXAMPLES,),
        "running": (EXAMPLES,), "stale": (EXAMPLES,), "corrupt": (EXAMPLES,), "complete": (EXAMPLES,),
    },
    "experiments": dict.fromkeys(BUILDERS, (NO_EXPERIMENTS, "workspace", "dvc fetch --all-commits data/samples")),
    "report": {
        "absent": (NO_REPORT, "dvc repro select"), "partial": (NO_REPORT,), "training": (NO_REPORT,),
        "running": (NO_REPORT,), "stale": (SHIP,), "corrupt": (UNDECIDED,), "complete": (SHIP, "One HTML file"),
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each state in a repository with one commit, as DVC leaves it."""
    roots = {}
    environment = {
        **os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.org",
    }  # fmt: skip
    for kind, build in BUILDERS.items():
        root = roots[kind] = tmp_path_factory.mktemp(kind)
        (root / ".dvc").mkdir()
        (root / ".dvc" / "config").touch()
        (root / ".dvc" / ".gitignore").write_text("/tmp\n/cache\n")
        build(root)
        for words in (["init", "-q"], ["add", ".dvc/config"], ["commit", "-q", "-m", "first"]):
            subprocess.run(["git", *words], cwd=root, env=environment, check=True)
    return roots


def test_the_table_above_leaves_no_page_and_no_state_out() -> None:
    views = {file.stem for file in Path("dashboard/views").glob("*.py")} - {"__init__"}
    assert set(SAYS) == set(PAGES) == views
    assert all(set(says) == set(BUILDERS) == set(BANNERS) for says in SAYS.values())


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("page", PAGES)
def test_every_page_bears_every_state_and_says_which(
    monkeypatch: pytest.MonkeyPatch, states: dict[str, Path], page: str, kind: str
) -> None:
    app = open_page(monkeypatch, states[kind], "" if page == "overview" else page)
    html = html_of(app)
    assert not app.error
    assert "Traceback" not in html
    assert str(states[kind]) not in html, "no path of this machine reaches the page"
    for sentence in (*BANNERS[kind], *SAYS[page][kind]):
        assert sentence in html, sentence
    if kind == "complete":
        assert "lp-banner" not in html
