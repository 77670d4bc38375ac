"""Every commit and DVC experiment of a project with its own parameters, scores and pictures; nothing is checked out.

Read through dvc.api, which takes no lock, so it works while a run is at work. A row that is running, failed or queued
has no scores here: DVC would show those of the commit that it started from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from loupe.errors import PipelineError
from loupe.params import Params
from loupe.records import SampleRecord, SamplesManifest
from loupe.run_files import listing, signature, stays_inside
from loupe.run_store import RunStore

Kind = Literal["workspace", "commit", "experiment"]
_UNFINISHED = ("Running", "Failed", "Queued")
_SECTIONS = frozenset(Params.model_fields)
_SAMPLES = "data/samples"
MAKE_ONE = " To make one: git init && dvc init && git add . && git commit -m start"


@dataclass(frozen=True, slots=True)
class Experiment:
    """One revision that can be looked at."""

    rev: str
    """Commit hash, in full; 'workspace' for the files as they are."""
    name: str
    """Of the experiment, or the short hash."""
    kind: Kind
    baseline: str
    """Short hash of the commit that an experiment started from; '' for the others."""
    created: str
    state: str
    """'' for a finished one, otherwise Running, Failed or Queued."""
    params: Mapping[str, Any]
    """Dotted name -> value, e.g. 'train.rank'."""
    changed: Mapping[str, tuple[Any, Any]]
    """Of an experiment: parameter -> (value in its baseline, value here)."""
    scores: Mapping[str, float]
    """metrics/summary.json; empty where the revision has none of its own."""


def experiments(root: Path, *, max_commits: int) -> tuple[Experiment, ...]:
    """Return the workspace, the last `max_commits` commits (first parents), and the experiments of each after it.

    Raises PipelineError where the project is in no git repository, has no commit, or DVC cannot read it.
    """
    import dvc.api
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        rows = dvc.api.exp_show(repo=str(root), num=max_commits)
    except (DvcException, SCMError) as error:
        said = str(error).replace(f"{root}/", "").replace(str(root), "this folder")
        raise PipelineError(
            f"DVC cannot list the experiments: {said}. They need a git repository with at least one commit, owned by "
            f"the user who runs this server.{'' if _repository(root) else MAKE_ONE}"
        ) from None
    except FileNotFoundError:
        raise PipelineError(
            "DVC cannot list the experiments while a trial's folder is set up or taken away. Look again in a moment."
        ) from None
    found: list[Experiment] = []
    baseline: Experiment | None = None
    for row in rows:
        experiment = _experiment(root, {**row, "sha": _full_hash(root, row.get("rev"))}, baseline)
        if experiment.kind == "commit":
            baseline = experiment
        found.append(experiment)
    return tuple(found)


def experiments_signature(root: Path) -> str:
    """Return a value that changes when a commit, an experiment, the queue or the workspace's scores do.

    A few looks at times of change, so that it can be asked every second or two; listing the experiments costs more.
    """
    repository = _repository(root) or root / ".git"
    exps, trials = repository / "refs" / "exps", root / ".dvc" / "tmp" / "exps"
    watched = [
        repository / "logs" / "HEAD", repository / "packed-refs", exps, root / "params.yaml",
        root / "metrics" / "summary.json",
    ]  # fmt: skip
    for folder in listing(exps):
        watched += [folder, *listing(folder)]
    # By name: a worker that is alive keeps exchanging messages of its own in the same folders.
    broker = trials / "celery" / "broker"
    names = [
        [file.name for file in listing(folder) if not file.name.endswith(".pidbox.msg")]
        for folder in (trials / "run", trials / "celery" / "result", broker / "in", broker / "processed")
    ]
    return repr([[signature(path) for path in watched], names])


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return parameter -> (value in one, in other) for those that differ; None where one has no such parameter."""
    names = [*one, *(name for name in other if name not in one)]
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}


def samples_at(root: Path, rev: str) -> SamplesManifest:
    """Return the pictures of a revision; PipelineError where it has none, or where cache and remote lack them."""
    content = _read(root, rev, f"{_SAMPLES}/manifest.json")
    if content is None:
        raise PipelineError(
            f"The pictures of {rev[:7]} are not here: the revision has none, or DVC's cache no longer holds them. "
            "To fetch them from a remote: dvc fetch --all-commits data/samples"
        )
    try:
        return SamplesManifest.model_validate_json(content)
    except ValidationError:
        raise PipelineError(
            f"data/samples/manifest.json of {rev[:7]} cannot be read: another version of Loupe wrote it, or "
            "DVC's cache is damaged. To fetch it again from a remote: dvc fetch --all-commits data/samples"
        ) from None


def show_pictures_at(store: RunStore, rev: str, samples: Iterator[SampleRecord] | list[SampleRecord]) -> set[str]:
    """Let the store give the files of these pictures by SHA-256, from DVC's cache; return the hashes that are there.

    Of a file in the cache the bytes are read: a damaged one is not there.
    """
    from dvc.api import DVCFileSystem
    from dvc_data.index import DataIndexDirError

    found: set[str] = set()
    with closing(DVCFileSystem(str(store.paths.root), rev=rev)) as filesystem:
        for sample in samples:
            if sample.file is None or sample.sha256 is None or not stays_inside(sample.file):
                continue
            try:
                md5 = filesystem.info(f"{_SAMPLES}/{sample.file}").get("md5")
            except (FileNotFoundError, DataIndexDirError):
                continue
            file = Path(filesystem.repo.cache.local.oid_to_path(md5)) if md5 else None
            if file is not None and store.files.sha256(file) == sample.sha256:
                store.shown[sample.sha256] = file
                found.add(sample.sha256)
    return found


def _repository(root: Path) -> Path | None:
    """Return the .git folder that the project lies in."""
    return next((folder / ".git" for folder in (root, *root.parents) if (folder / ".git").is_dir()), None)


def _experiment(root: Path, row: Mapping[str, Any], baseline: Experiment | None) -> Experiment:
    kind = _kind(row)
    state = str(row.get("State") or "")
    state = state if state in _UNFINISHED else ""
    params = {name: value for name, value in row.items() if name.split(".")[0] in _SECTIONS and value is not None}
    said = str(row.get("rev") or "")
    rev = "workspace" if kind == "workspace" else str(row.get("sha") or said)
    of_experiment = kind == "experiment" and baseline is not None
    return Experiment(
        rev=rev,
        name=_name(kind, row.get("Experiment"), said, rev),
        kind=kind,
        baseline=baseline.name if of_experiment and baseline else "",
        created=str(row.get("Created") or ""),
        state=state,
        params=params,
        changed=differing(baseline.params, params) if of_experiment and baseline else {},
        scores={} if state else _scores(root, rev),
    )


def _name(kind: Kind, given: str | None, said: str, rev: str) -> str:
    """Return the experiment's name, or the short hash, behind the branch or tag that DVC gave in its place."""
    if kind == "workspace":
        return "workspace"
    return given or (rev[:7] if rev.startswith(said) else f"{said} {rev[:7]}")


def _full_hash(root: Path, rev: str | None) -> str | None:
    """Return the commit that a branch, tag or short hash stands for; None for the workspace and what is no commit."""
    from scmrepo.exceptions import RevError
    from scmrepo.git import Git

    if not rev or rev == "workspace":
        return None
    repository = Git(str(root))
    try:
        return repository.resolve_rev(rev)
    except RevError:
        return None
    finally:
        repository.close()


def _kind(row: Mapping[str, Any]) -> Kind:
    if row.get("rev") == "workspace" or row.get("Experiment") == "workspace":
        return "workspace"
    return "commit" if row.get("typ") == "baseline" else "experiment"


def _scores(root: Path, rev: str) -> dict[str, float]:
    content = _workspace_summary(root) if rev == "workspace" else _read(root, rev, "metrics/summary.json")
    try:
        values = json.loads(content) if content else {}
    except ValueError:
        return {}
    if not isinstance(values, dict):
        return {}
    # Python reads NaN from JSON; one would be the best and the worst of a column.
    return {
        name: float(value) for name, value in values.items() if isinstance(value, int | float) and math.isfinite(value)
    }


def _workspace_summary(root: Path) -> str | None:
    try:
        return (root / "metrics" / "summary.json").read_text(encoding="utf-8")
    except OSError:
        return None


def _read(root: Path, rev: str, file: str) -> str | None:
    """Return a file of a revision; None where it is not to be had, which is asked again each time."""
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    try:
        return _read_known(root, rev, file)
    except (DvcException, DataIndexDirError, OSError, UnicodeDecodeError):
        return None


@lru_cache(maxsize=512)
def _read_known(root: Path, rev: str, file: str) -> str:
    """Return a file of a revision, which never changes."""
    import dvc.api

    return dvc.api.read(file, repo=str(root), rev=rev)
