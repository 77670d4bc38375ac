"""Run `evaluate` and `select` once in a folder of evaluation_run.py; report time, memory and counts. Not for hand use.

Started by bench_evaluate.py in a process of its own, so that the peak of the memory is this run's. With --fill the
stand-ins compute what is missing; without it everything must be in the work store.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from benchmarks.evaluation_run import no_networks, stand_in_networks
from loupe.diffusion.train_log import peak_memory_gb
from loupe.metric_table import METRIC_SPECS
from loupe.params import load_params
from loupe.paths import ProjectPaths
from loupe.stage import StageWork
from loupe.workstore import WorkStore


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("report", type=Path)
    parser.add_argument("--fill", action="store_true")
    parser.add_argument("--reference", action="store_true", help="run the stage `reference` instead")
    parser.add_argument("--without-metric", help="a key that is taken out of the table of metrics")
    options = parser.parse_args()
    if options.without_metric:
        del METRIC_SPECS[options.without_metric]
    os.chdir(options.folder)
    with stand_in_networks() if options.fill else no_networks():
        report = _reference() if options.reference else _evaluate_and_select()
    options.report.write_text(json.dumps(report))


def _reference() -> dict[str, float]:
    from stages.reference import reference

    return {"reference_s": _timed(reference)}


def _evaluate_and_select() -> dict[str, float]:
    from stages.evaluate import evaluate
    from stages.select import select

    seconds = {"evaluate_s": _timed(evaluate), "select_s": _timed(select), "cpu_s": time.process_time()}
    counts = ProjectPaths(Path.cwd()).work / "counts.jsonl"
    last = json.loads(counts.read_text().splitlines()[-1])
    return {**seconds, "computed": last["computed"], "reused": last["reused"], "peak_memory_gb": peak_memory_gb("cpu")}


def _timed(stage: StageWork) -> float:
    paths = ProjectPaths(Path.cwd())
    params = load_params(paths.root / "params.yaml")
    started = time.perf_counter()
    stage(params, paths, WorkStore(paths.work))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
