"""How long `evaluate` and `select` take when every feature is known, in how much memory, and what an addition costs.

    python -m benchmarks.bench_evaluate

Base model and 7 checkpoints, 64 prompts x 4 seeds each, against 427 held-out and 1,991 training photos: all metrics,
intervals, the selection and all files. Features are of the shapes of Inception and ViT-B-32 (see evaluation_run.py) and
lie in the work store. Then the same with four times as many pictures, and with one metric, checkpoint and prompt
more each. Every run is a process of its own; pictures and features are made beforehand and not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.evaluation_run import N_PHOTOS, ROOT, write_params, write_photos_and_scorers, write_samples
from benchmarks.report import keep, spread
from loupe.params import load_params

N_CHECKPOINTS, N_PROMPTS, SEEDS, TIMES_MORE = 7, 64, 4, 4
ADDED_METRIC = "precision_demo"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        content = measure(Path(temporary), turns=options.turns)
    print(json.dumps(content, indent=1))
    print(f"kept in {keep('evaluate', content)}")


def measure(folder: Path, *, turns: int) -> dict[str, Any]:
    """Return times, memory and counts of the runs that this module's docstring names."""
    usual, more = folder / "usual", folder / "more"
    _make(usual, seeds=SEEDS)
    filled = _run(usual, "--fill", "--without-metric", ADDED_METRIC)
    one_more_metric, *timed = (_run(usual) for _ in range(1 + turns))
    write_samples(usual, n_checkpoints=N_CHECKPOINTS + 1, n_prompts=N_PROMPTS, seeds=SEEDS)
    one_more_checkpoint = _run(usual, "--fill")
    write_samples(usual, n_checkpoints=N_CHECKPOINTS, n_prompts=N_PROMPTS + 1, seeds=SEEDS)
    one_more_prompt = _run(usual, "--fill")
    _make(more, seeds=TIMES_MORE * SEEDS)
    _run(more, "--fill")
    with_more = _run(more)
    counts = {
        "first time": filled, "again": timed[0], "one metric more": one_more_metric,
        "one checkpoint more": one_more_checkpoint, "one prompt more": one_more_prompt,
    }  # fmt: skip
    return {
        "setting": {
            "checkpoints": N_CHECKPOINTS, "pictures_per_checkpoint": N_PROMPTS * SEEDS, "prompts": N_PROMPTS,
            "photos": N_PHOTOS, "bootstrap_draws": load_params(ROOT / "params.yaml").evaluate.bootstrap_draws,
            "turns": turns, "base_model": "evaluated too",
            "features": "random projections of drawn pictures: 2048 + 1008 and 512",
        },
        "evaluate_and_select_s": spread([run["evaluate_s"] + run["select_s"] for run in timed]),
        "evaluate_s": spread([run["evaluate_s"] for run in timed]),
        "select_s": spread([run["select_s"] for run in timed]),
        "cpu_s_of_the_process": spread([run["cpu_s"] for run in timed]),
        "peak_memory_gb": spread([run["peak_memory_gb"] for run in timed]),
        "with_4_times_the_pictures": {
            "pictures_per_checkpoint": TIMES_MORE * N_PROMPTS * SEEDS,
            "evaluate_s": float(f"{with_more['evaluate_s']:.3g}"),
            "peak_memory_gb": with_more["peak_memory_gb"],
            "peak_memory_ratio": float(f"{with_more['peak_memory_gb'] / timed[0]['peak_memory_gb']:.3g}"),
        },
        "counts": {n: {"computed": run["computed"], "reused": run["reused"]} for n, run in counts.items()},
    }  # fmt: skip


def _make(folder: Path, *, seeds: int) -> None:
    folder.mkdir()
    write_photos_and_scorers(folder)
    write_params(folder, n_prompts=N_PROMPTS, seeds=seeds)
    write_samples(folder, n_checkpoints=N_CHECKPOINTS, n_prompts=N_PROMPTS, seeds=seeds)
    _run(folder, "--fill", "--reference")


def _run(folder: Path, *options: str) -> dict[str, Any]:
    report = folder / "report.json"
    command = [sys.executable, "-m", "benchmarks.evaluate_once", str(folder), str(report), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LOUPE_DEVICE": "cpu"}
    environment.pop("DVC_ROOT", None)  # it would point the work store elsewhere
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    content = json.loads(report.read_text())
    print(f"{folder.name} {' '.join(options)}: {json.dumps(content)}", flush=True)
    return content


if __name__ == "__main__":
    main()
