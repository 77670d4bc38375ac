"""What README and CONTRIBUTING name exists: files, make targets, commands."""

from __future__ import annotations

import re
import subprocess

import pytest

from loupe.run_store import RunStore
from loupe.score_report import score_report
from tests.contracts.source_tree import ROOT

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))


def _made_by_a_run(path: str) -> bool:
    return path.startswith(("data/", ".work", "metrics/", ".venv", "dvc_plots"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_in_backticks_or_links_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    quoted = re.findall(r"`([\w./-]+/[\w./*-]*|[\w-]+\.(?:py|yaml|md|toml|lock))`", text)
    linked = re.findall(r"\]\((?!https?:|#)([^)]+)\)|src=\"(?!https?:)([^\"]+)\"", text)
    names = {n for n in quoted if "*" not in n and "<" not in n} | {a or b for a, b in linked}
    missing = sorted(n for n in names if not _made_by_a_run(n) and not (ROOT / n).exists())
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_named_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(
        re.findall(r"\bmake ([a-z][a-z-]+)", " ".join(re.findall(r"`[^`]+`|^\s{4}.+$|```.*?```", text, re.M | re.S)))
    )
    assert named <= TARGETS


def test_make_help_lists_the_targets_people_use() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("repro", "dashboard", "test", "demo-kit"):
        assert f"make {target}" in done.stdout


def test_the_scores_in_the_readme_are_those_of_the_committed_run() -> None:
    """The last row needs data/, which a fresh clone has not; the rows of the checkpoints come from metrics/ alone."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"`python -m loupe\.cli scores --only ([\w ]+)`", text)
    assert command, "README must name the command that prints its table"
    report = score_report(RunStore(ROOT), keys=command[1].split()).splitlines()
    readme = text.splitlines()
    checkpoints = [line for line in report if line.startswith(("| base model", "| step"))]
    assert len(checkpoints) >= 2
    assert set(checkpoints) <= set(readme), f"run: {command[0]}"
