"""DVC's queue of trials: adding to it, starting and stopping it, and how far each trial is. It trains nothing itself.

What is asked of DVC goes through its command line, as a list of arguments; what a trial is doing is read from the files
that DVC keeps below .dvc/tmp/exps, so it takes no lock.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from loupe.errors import PipelineError
from loupe.run_files import listing
from loupe.run_state import Progress, is_alive, run_state
from loupe.run_store import RunStore

COMMAND_LIMIT_S = 300
LOG_LINES = 12
_LOG_TAIL_BYTES = 16_384
_REVISION = re.compile(r"[0-9a-f]{7,64}")
START = ("dvc", "queue", "start", "-j", "1")
STOP = ("dvc", "queue", "stop")
INTERRUPT = ("dvc", "queue", "kill")
"""Followed by revisions. Interrupts the stage as well, which `dvc queue stop --kill` leaves running on its own."""


@dataclass(frozen=True, slots=True)
class TrialView:
    """What a queued trial is doing, or what it said last."""

    stage: str
    """The stage at work; '' when none is."""
    progress: Progress | None
    log: tuple[str, ...]
    """Its last lines, the folder's own path left out."""


def run_dvc(root: Path, command: Sequence[str]) -> str:
    """Run a `dvc ...` command in the project and return what it said; PipelineError with its last lines where it fails.

    The stages of a trial and DVC's worker need `python` and `dvc` of this very environment, which need not be active.
    """
    binaries = str(Path(sys.executable).parent)
    environment = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
    environment |= {"PATH": f"{binaries}{os.pathsep}{environment.get('PATH', '')}", "DVC_NO_ANALYTICS": "1"}
    # Into a file: a worker that `dvc queue start` leaves behind would hold a pipe open until it ends.
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                [sys.executable, "-m", *command], cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, check=False, timeout=COMMAND_LIMIT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise PipelineError(f"`{' '.join(command)}` did not answer within {COMMAND_LIMIT_S} s.") from None
        output.seek(0)
        lines = _readable(output.read().decode("utf-8", errors="replace"), root)
    if done.returncode != 0:
        said = " ".join(line.strip() for line in lines[-3:]) or "it said nothing"
        raise PipelineError(f"`{' '.join(command)}` failed: {said}")
    return "\n".join(lines)


def worker_is_alive(root: Path) -> bool:
    """Whether a worker of the queue is running: only then do queued trials start."""
    for file in listing(_exps(root) / "celery"):
        if file.name.startswith("dvc-exp-worker-") and file.suffix == ".json":
            info = _json(file)
            pid = info.get("pid")
            if info.get("returncode") is None and isinstance(pid, int) and is_alive(pid):
                return True
    return False


def trial_view(root: Path, rev: str, *, running: bool) -> TrialView:
    """Return what the trial of a revision is doing; all of it empty where DVC keeps nothing of it."""
    folder = _trial_folder(root, rev)
    if folder is None:
        return TrialView("", None, ())
    workspace = _workspace(root, folder)
    log = tuple(_log_lines(folder / f"{folder.name}.out", workspace, root))
    if not running or workspace is None or not (workspace / "params.yaml").is_file():
        return TrialView("", None, log)
    state = run_state(_store(workspace))
    stage = next((stage.name for stage in state.stages if stage.status == "running"), "")
    return TrialView(stage, state.progress if stage else None, log)


@lru_cache(maxsize=4)
def _store(workspace: Path) -> RunStore:
    return RunStore(workspace)


def _exps(root: Path) -> Path:
    return root / ".dvc" / "tmp" / "exps"


def _trial_folder(root: Path, rev: str) -> Path | None:
    if not _REVISION.fullmatch(rev):
        return None
    found = [folder for folder in listing(_exps(root) / "run") if folder.name.startswith(rev) and folder.is_dir()]
    return found[0] if len(found) == 1 else None


def _workspace(root: Path, folder: Path) -> Path | None:
    """Return the temporary copy of the project that a trial runs in, where DVC says that and it is still there."""
    said = _json(folder / f"{folder.name}.run").get("root_dir")
    if not isinstance(said, str) or Path(said).resolve().parent != _exps(root).resolve():
        return None
    return Path(said).resolve() if Path(said).is_dir() else None


def _log_lines(file: Path, workspace: Path | None, root: Path) -> list[str]:
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - _LOG_TAIL_BYTES))
            tail = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = _readable(tail, *([workspace, root] if workspace else [root]))
    return lines[-LOG_LINES:]


def _readable(text: str, *folders: Path) -> list[str]:
    """Return the lines that say something, without colour codes, overwritten bars, and the paths of this machine."""
    for folder in folders:
        text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), ".")
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    return [line for raw in text.split("\n") if (line := raw.rstrip("\r ").rpartition("\r")[2].rstrip())]


def _json(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
