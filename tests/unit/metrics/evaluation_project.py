"""A small project whose evaluation stages are run by tests, with what they need to look into it and to change it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from loupe.atomic_io import read_record, write_record
from loupe.evaluation_records import EvaluationManifest
from loupe.metric_specs import METRIC_SPECS, MetricSpec
from loupe.params import Params
from loupe.paths import ProjectPaths
from loupe.records import SampleRecord, SamplesManifest
from loupe.workstore import WorkStore
from tests.unit.metrics.small_run import inside, make_small_run, small_params, toy_prompts

KEYS = (
    "fd_demo", "kid_demo", "cmmd_demo", "precision_demo", "recall_demo", "density_demo", "coverage_demo", "clip_demo",
    "clip_gap_demo", "colour_demo", "colour_ratio", "colour_share", "colour_top2", "background_ok", "centred_ok",
    "single_object", "sharpness_pct", "memor_share_demo", "diversity_ratio_demo", "vendi_demo", "is_demo",
)  # fmt: skip
SPECS: dict[str, MetricSpec] = {key: METRIC_SPECS[key] for key in KEYS}
STEPS = (0, 10, 20, 30)
BLACK = {"file": None, "sha256": None, "invalid_reason": "black"}


def params(**sections: dict) -> Params:
    generate = {"prompts": toy_prompts(6), "val_captions": 0, "seeds_per_prompt": 2}
    return small_params(**{"generate": generate, **sections})


class Run:
    """A small project whose stages have been run up to a point."""

    def __init__(self, root: Path, *, made: bool = False, **options: object) -> None:
        if not made:
            make_small_run(root, **options)
        self.paths, self.store = ProjectPaths(root), WorkStore(root / ".work")

    def stage(self, work: Callable[[Params, ProjectPaths, WorkStore], None], **sections: dict) -> None:
        with inside(self.paths.root):
            work(params(**sections), self.paths, self.store)

    @property
    def manifest_path(self) -> Path:
        return self.paths.samples / "manifest.json"

    def samples(self) -> SamplesManifest:
        return read_record(self.manifest_path, SamplesManifest, made_by="generate")

    def evaluation(self) -> EvaluationManifest:
        return read_record(self.paths.evaluation / "manifest.json", EvaluationManifest, made_by="evaluate")

    def finding(self) -> str:
        """Return the one finding besides that so few pictures are ranked by no Fréchet distance, which comes last."""
        (found, few) = self.evaluation().findings
        assert "fd_demo can rank the worse checkpoint first" in few
        return found

    def change_samples(self, change: Callable[[SampleRecord], SampleRecord]) -> None:
        """Rewrite the samples' manifest with `change(sample)` in place of each sample."""
        manifest = self.samples()
        write_record(
            self.manifest_path, manifest.model_copy(update={"samples": tuple(change(s) for s in manifest.samples)})
        )

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.paths.metrics / name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def bytes_of_results(self) -> dict[str, bytes]:
        folders = (self.paths.metrics, self.paths.reference, self.paths.evaluation)
        return {str(f.relative_to(self.paths.root)): f.read_bytes() for folder in folders for f in folder.iterdir()}


def without_best(row: dict[str, str]) -> dict[str, str]:
    """Return a row of checkpoints.csv without what another checkpoint decides."""
    return {name: cell for name, cell in row.items() if "_diff_best" not in name}
