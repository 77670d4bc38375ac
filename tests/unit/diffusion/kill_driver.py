"""Runs the train stage many times, killing it with SIGKILL at chosen moments; prints what each run left behind.

Every run is a fork of one process that has the libraries loaded, so a run takes a second instead of ten. Torch keeps to
one thread from the start: its thread pool would not survive a fork.
"""

import hashlib
import json
import os
import signal
import sys
from math import inf
from pathlib import Path

import torch

from loupe import atomic_io, paths, workstore
from loupe.diffusion import train_log, training
from loupe.params import load_params
from stages import train as train_stage

RARELY = "rarely"


def main(undisturbed: Path, disturbed: Path, kills: list[list[str]]) -> dict:
    """Train once undisturbed; then for every list of kills train with each kill in turn, and once to the end.

    A state is stored after every step, or where the list begins with RARELY, at checkpoints only.
    """
    torch.set_num_threads(1)
    _import_libraries()
    train_stage.CSV_INTERVAL_S = train_log.PAUSE = 0
    report = {"undisturbed": _outcome(undisturbed, [])}
    for number, moments in enumerate(kills):
        report[" then ".join(moments)] = _outcome(disturbed / str(number), moments)
    return report


def _outcome(root: Path, moments: list[str]) -> dict:
    """Return how the runs ended, how many steps each had done by then, and what the last one computed and left."""
    train_stage.INTERIM_INTERVAL_S = inf if RARELY in moments else 0.0
    signals, reached = [], []
    for moment in [*(moment for moment in moments if moment != RARELY), None]:
        signals.append(_run(root, moment))
        reached.append(_n_rows(root / "metrics" / "train.csv"))
    reports = map(json.loads, (root / ".work" / "counts.jsonl").read_text().splitlines())
    (counts,) = (report for report in reports if report["stage"] == "train")  # a killed run reports nothing
    return {"signals": signals, "reached": reached, "counts": counts, "files": _hashes(root)}


def _n_rows(table: Path) -> int:
    return len(table.read_text().splitlines()) - 1 if table.exists() else 0


def _import_libraries() -> None:
    """Import before forking what the stage imports when it needs it."""
    from diffusers import DDPMScheduler, UNet2DConditionModel  # noqa: F401
    from peft.tuners.lora import LoraLayer  # noqa: F401


def _run(root: Path, kill_at: str | None) -> int:
    """Run the stage in a fork and return how it ended: 0, or minus the signal's number."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.chdir(root)
    if kill_at:
        _arm(kill_at)
    project = paths.ProjectPaths(root)
    train_stage.train(load_params(root / "params.yaml"), project, workstore.WorkStore(project.work))
    sys.stdout.flush()
    os._exit(0)


def _arm(kill_at: str) -> None:
    """Make this process die at e.g. 'write 5' (fully written, not yet renamed) or 'step 3' (gradients half done)."""
    kind, _, number = kill_at.partition(" ")
    owner, name = {"write": (atomic_io.os, "fsync"), "step": (training.Trainer, "_backward")}[kind]
    original = getattr(owner, name)
    calls = 0

    def deadly(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    setattr(owner, name, deadly)


def _hashes(root: Path) -> dict[str, str]:
    # What a kill leaves half-written in metrics/ is ignored by git and never read; data/checkpoints is made anew.
    files = [*(root / "data" / "checkpoints").rglob("*"), *(root / "metrics").glob("[!.]*")]
    return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}


if __name__ == "__main__":
    print("REPORT " + json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))))
