"""Recommend a checkpoint from the val scores, with the evidence in words, or say that there is no clear winner.

Reads metrics/checkpoints.csv and the bootstrap draws in data/evaluation; writes metrics/selection.json. The rule is in
loupe/metrics/selection.py, its gates and weights in params.yaml: both were fixed before the run.
"""

from __future__ import annotations

from loupe.atomic_io import write_record
from loupe.params import Params
from loupe.paths import ProjectPaths
from loupe.stage import run_stage
from loupe.workstore import WorkStore


def select(params: Params, paths: ProjectPaths, store: WorkStore) -> None:
    """Run the stage; see the module's docstring."""
    from loupe.metrics.recommendation import recommend

    del store  # there is nothing to compute that is worth keeping
    selection = recommend(paths, params.select)
    write_record(paths.metrics / "selection.json", selection)
    print(f"select: {selection.reason}")


if __name__ == "__main__":
    run_stage("select", __doc__, select)
