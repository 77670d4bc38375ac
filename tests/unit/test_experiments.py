"""Commits and experiments of a small real DVC project, read without checking anything out."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from loupe.atomic_io import write_bytes
from loupe.errors import PipelineError
from loupe.experiments import (
    Experiment,
    _experiment,
    differing,
    experiments,
    experiments_signature,
    samples_at,
    show_pictures_at,
)
from loupe.run_store import RunStore
from tests.small_repository import git, two_commits


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_commits(tmp_path_factory.mktemp("project"))


def test_commits_older_than_head_are_there_with_their_own_parameters_and_scores(project: Path) -> None:
    workspace, second, first = experiments(project, max_commits=10)
    assert workspace.name == "workspace"
    assert [row.kind for row in (workspace, second, first)] == ["workspace", "commit", "commit"]
    assert [row.scores["fd_demo_last"] for row in (workspace, second, first)] == [29, 29, 30]
    assert [second.rev, first.rev] == [git(project, "rev-parse", rev) for rev in ("HEAD", "HEAD~1")]
    assert second.name == f"{git(project, 'branch', '--show-current')} {second.rev[:7]}"
    old, new = differing(first.params, second.params)["train.learning_rate"]
    assert new == 0.0005
    assert old != new


def test_pictures_of_a_commit_come_from_the_cache_without_a_checkout(project: Path) -> None:
    before = git(project, "status", "--porcelain")
    first, store = git(project, "rev-parse", "HEAD~1"), RunStore(project)
    manifest = samples_at(project, first)
    found = show_pictures_at(store, first, manifest.samples)
    assert found == {sample.sha256 for sample in manifest.samples}
    for sha256 in found:
        assert hashlib.sha256(store.sample_file(sha256).read_bytes()).hexdigest() == sha256
    now = {sample.sha256 for sample in store.samples_manifest().samples}
    assert found != now, "they are not the pictures of the workspace"
    assert git(project, "status", "--porcelain") == before


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts the open files of this process in /proc")
def test_looking_at_pictures_again_and_again_leaves_no_file_open(project: Path) -> None:
    first, store = git(project, "rev-parse", "HEAD~1"), RunStore(project)
    samples = samples_at(project, first).samples
    show_pictures_at(store, first, samples)
    gc.collect()
    gc.disable()
    try:
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            show_pictures_at(store, first, samples)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before
    finally:
        gc.enable()


def test_a_revision_whose_pictures_are_gone_says_so(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, symlinks=True)
    shutil.rmtree(copy / ".dvc" / "cache")
    with pytest.raises(PipelineError, match="dvc fetch"):
        samples_at(copy, git(copy, "rev-parse", "HEAD~1"))


def damaged_copy(project: Path, copy: Path, name: str) -> Path:
    """A copy whose DVC cache holds one file of the first commit cut in half."""
    shutil.copytree(project, copy, symlinks=True)
    pointer = git(copy, "show", "HEAD~1:data/samples.dvc")
    cache = copy / ".dvc" / "cache" / "files" / "md5"

    def kept(md5: str) -> Path:
        return cache / md5[:2] / md5[2:]

    folder = next(line.split(":")[1].strip() for line in pointer.splitlines() if "md5:" in line)
    entries = {entry["relpath"]: entry["md5"] for entry in json.loads(kept(folder).read_text())}
    file = kept(entries[name] if name else folder)
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return copy


@pytest.mark.parametrize(("name", "message"), [("", "not here"), ("manifest.json", "is damaged")])
def test_a_damaged_cache_is_told_with_the_mend(project: Path, tmp_path: Path, name: str, message: str) -> None:
    copy = damaged_copy(project, tmp_path / "copy", name)
    with pytest.raises(PipelineError, match=f"{message}.*dvc fetch --all-commits data/samples"):
        samples_at(copy, git(copy, "rev-parse", "HEAD~1"))


def test_a_damaged_picture_in_the_cache_is_not_there(project: Path, tmp_path: Path) -> None:
    copy = damaged_copy(project, tmp_path / "copy", "black_shoes-0/000075.png")
    first, store = git(copy, "rev-parse", "HEAD~1"), RunStore(copy)
    manifest = samples_at(copy, first)
    lost = next(s.sha256 for s in manifest.samples if s.file == "black_shoes-0/000075.png")
    assert show_pictures_at(store, first, manifest.samples) == {s.sha256 for s in manifest.samples} - {lost}
    assert store.sample_file(lost) is None


@pytest.mark.parametrize("state", ["Running", "Failed", "Queued"])
def test_an_unfinished_experiment_never_shows_the_scores_of_its_baseline(project: Path, state: str) -> None:
    head = git(project, "rev-parse", "HEAD")
    baseline = Experiment(head, head[:7], "commit", "", "", "", {"train.rank": 8}, {}, {"fd_demo_last": 29.0})
    row = {
        "Experiment": "bold-shoe", "rev": head, "typ": "branch_base", "State": state, "train.rank": 16,
        "fd_demo_last": 29.0, "data/samples": "abc",
    }  # fmt: skip
    found = _experiment(project, row, baseline)
    assert (found.state, found.scores) == (state, {})
    assert found.changed == {"train.rank": (8, 16)}
    assert found.baseline == head[:7]


def test_a_score_that_is_no_finite_number_is_absent(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, symlinks=True)
    write_bytes(copy / "metrics" / "summary.json", b'{"fd_demo_last": NaN, "kid_last": -Infinity, "n_images": 4}')
    workspace, *_ = experiments(copy, max_commits=1)
    assert workspace.scores == {"n_images": 4.0}


def test_outside_a_repository_the_reason_is_said(tmp_path: Path) -> None:
    write_bytes(tmp_path / "params.yaml", b"seed: 1\n")
    with pytest.raises(PipelineError, match="DVC cannot list the experiments") as told:
        experiments(tmp_path, max_commits=1)
    assert str(tmp_path) not in str(told.value)


def test_parameters_that_only_one_has_differ() -> None:
    assert differing({"a": 1, "b": 2}, {"b": 2, "c": 3}) == {"a": (1, None), "c": (None, 3)}


def test_the_signature_changes_with_commits_trials_and_scores_and_with_nothing_else(
    project: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, symlinks=True)
    seen = [experiments_signature(copy)]
    chatter = copy / ".dvc" / "tmp" / "exps" / "celery" / "broker" / "in"
    write_bytes(chatter / "1_x.reply.celery.pidbox.msg", b"{}")
    assert experiments_signature(copy) == seen[0], "a worker's own messages are no news"
    for change in (
        lambda: write_bytes(chatter / "2_x.celery.msg", b"{}"),
        lambda: write_bytes(copy / ".git" / "refs" / "exps" / "ab" / "cd" / "bold-shoe", b"0" * 40),
        lambda: write_bytes(copy / "metrics" / "summary.json", b"{}"),
        lambda: git(copy, "commit", "-q", "--allow-empty", "-m", "third"),
    ):
        change()
        seen.append(experiments_signature(copy))
    assert len(set(seen)) == 5


def test_a_trial_that_goes_while_dvc_looks_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(**options: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", ".dvc/tmp/exps/tmp2ksf9x8d")

    monkeypatch.setattr("dvc.api.exp_show", gone)
    with pytest.raises(PipelineError, match=r"taken away\. Look again in a moment"):
        experiments(two_commits(tmp_path), max_commits=1)
