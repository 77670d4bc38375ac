"""The frame every stage runs in: arguments, parameters, paths, work store, its lock, and how mistakes are shown.

It knows no stage; each `stages/<name>.py` hands its work in.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from loupe.errors import exit_on_user_error
from loupe.file_lock import hold
from loupe.launch import launch_if_asked, launched_processes, require_launch_as_asked
from loupe.params import Params, load_params
from loupe.paths import ProjectPaths
from loupe.workstore import WorkStore

StageWork = Callable[[Params, ProjectPaths, WorkStore], None]


def run_stage(name: str, description: str | None, work: StageWork, *, may_be_many: bool = False) -> None:
    """Parse `--params`, load it, and run `work`; a user's mistake is printed bare with exit code 2.

    `may_be_many`: several processes may do the stage's work together (see `loupe.launch`).
    """
    parser = argparse.ArgumentParser(prog=f"python -m stages.{name}", description=description)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: params.yaml")
    arguments = parser.parse_args()

    def whole_stage() -> None:
        require_launch_as_asked(name, may_be_many=may_be_many)
        params = load_params(arguments.params)
        if may_be_many:
            launch_if_asked(f"stages.{name}", sys.argv[1:])
        paths = ProjectPaths(Path.cwd())
        with _alone(name, paths.root):
            work(params, paths, WorkStore(paths.work))

    exit_on_user_error(whole_stage)


def _alone(name: str, folder: Path) -> AbstractContextManager[None]:
    """Hold the stage's outputs in `folder`: a run that was killed may have left its stage behind, still writing.

    Where several processes do the stage, the main one holds them for all. It does not wait, since the others could not
    tell that from a lost process.
    """
    n_processes = launched_processes()
    if n_processes > 1 and os.environ.get("RANK") != "0":
        return nullcontext()
    busy = f"Another process runs stage {name} in this folder"
    return hold(folder / ".work" / "locks" / name, busy=busy, waits=n_processes == 1)


def report_counts(name: str, *, computed: int, reused: int) -> None:
    """Print and record how much of a stage's work was new: DVC says 'Running stage' even when all of it was reused.

    The record is a line of `.work/counts.jsonl`, not of a manifest: the same result must give the same manifest.
    """
    print(f"{name}: computed={computed} reused={reused}", flush=True)
    line = {"stage": name, "time": datetime.now(UTC).isoformat(), "computed": computed, "reused": reused}
    path = ProjectPaths(Path.cwd()).work / "counts.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
