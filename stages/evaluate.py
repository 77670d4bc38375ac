"""Score the base model and every checkpoint: per checkpoint and per picture, with intervals paired by prompt.

Reads data/samples, the list of checkpoints, data/reference, the validation losses of train and the extractors; writes
checkpoints.csv, per_image.csv, overfitting.csv and summary.json in metrics/, and data/evaluation, its manifest last.
Features of pictures that were measured before come from the work store; when all are there, no network is loaded.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from loupe.atomic_io import empty_folder, read_record, sha256_file, write_csv, write_json, write_record
from loupe.evaluation_records import EvaluationManifest, ReferenceManifest
from loupe.params import Params
from loupe.paths import ProjectPaths, step_name
from loupe.records import CheckpointsManifest, SamplesManifest
from loupe.stage import report_counts, run_stage
from loupe.workstore import WorkStore, library_versions

if TYPE_CHECKING:
    from pathlib import Path

    from loupe.metrics.evaluation import Evaluated

LIBRARIES = ("numpy", "open-clip-torch", "pillow", "scipy", "torch", "torch-fidelity", "transformers")


def evaluate(params: Params, paths: ProjectPaths, store: WorkStore) -> None:
    """Run the stage; see the module's docstring."""
    import numpy as np

    from loupe.diffusion.device import choose_device, device_identity
    from loupe.metrics.controls import control_scores
    from loupe.metrics.evaluation import aims_of, evaluate_samples
    from loupe.metrics.extractors import Machine, resolve_extractors
    from loupe.metrics.image_set import RealPhotos
    from loupe.metrics.image_set_files import read_image_set
    from loupe.metrics.overfitting import read_validation_losses
    from loupe.metrics.same_run import require_same_run

    settings = params.evaluate
    policy = choose_device()
    machine = Machine(policy.device, device_identity(policy))
    extractors = resolve_extractors(settings.extractors, demo_folder=paths.demo, machine=machine)
    samples = read_record(paths.samples / "manifest.json", SamplesManifest, made_by="generate")
    require_same_run(samples, read_record(paths.checkpoints / "manifest.json", CheckpointsManifest, made_by="train"))
    losses = read_validation_losses(paths.metrics, samples.steps)
    reference = read_record(paths.reference / "manifest.json", ReferenceManifest, made_by="reference")
    extractors.require_same(reference.extractors)
    train, val = (read_image_set(paths.reference, s, reference.files, made_by="reference") for s in ("train", "val"))
    real = RealPhotos(train=train, held_out=val)
    common = {"extractors": extractors, "store": store, "batch_size": settings.batch_size}
    evaluated = evaluate_samples(
        samples,
        paths.samples,
        real=real,
        n_draws=settings.bootstrap_draws,
        rng=np.random.default_rng([params.seed, 3]),
        made_by="generate",
        aims=aims_of(reference.nulls, reference.real_scores),
        **common,
    )
    evaluated = replace(evaluated, losses=losses)
    controls = control_scores(samples, real, evaluated.specs, rng=np.random.default_rng([params.seed, 6]), **common)
    _write_metrics(paths.metrics, evaluated, reference)
    files = _write_features(empty_folder(paths.evaluation), evaluated)
    manifest = EvaluationManifest(
        extractors=extractors.infos,
        metric_keys=tuple(evaluated.specs),
        nulls=reference.nulls,
        real_scores=reference.real_scores,
        controls=controls,
        n_real=evaluated.n_real,
        samples_sha256=sha256_file(paths.samples / "manifest.json"),
        reference_sha256=sha256_file(paths.reference / "manifest.json"),
        targets={k: getattr(settings.targets, spec.target) for k, spec in evaluated.specs.items() if spec.target},
        best_steps=dict(evaluated.best_steps),
        absent=evaluated.absent,
        unreadable=evaluated.unreadable,
        findings=evaluated.findings,
        library_versions=library_versions(*LIBRARIES),
        files=files,
    )
    write_record(paths.evaluation / "manifest.json", manifest)
    for line in evaluated.said:
        print(f"evaluate: {line}")
    report_counts("evaluate", computed=evaluated.measured.computed, reused=evaluated.measured.reused)


def _write_metrics(folder: Path, evaluated: Evaluated, reference: ReferenceManifest) -> None:
    from loupe.metric_specs import checkpoint_columns
    from loupe.metrics import overfitting, tables

    rows = tables.checkpoint_rows(evaluated)
    write_csv(folder / "checkpoints.csv", checkpoint_columns(evaluated.specs), rows)
    write_csv(folder / "per_image.csv", tables.per_image_columns(evaluated.specs), tables.per_image_rows(evaluated))
    signs = overfitting.overfitting_rows(rows, evaluated.losses, evaluated.specs)
    write_csv(folder / "overfitting.csv", overfitting.overfitting_columns(evaluated.specs, evaluated.losses), signs)
    write_json(folder / "summary.json", tables.summary(evaluated, reference.nulls))


def _write_features(folder: Path, evaluated: Evaluated) -> dict[str, str]:
    from loupe.metrics.evaluation import RESAMPLES
    from loupe.metrics.image_set_files import write_arrays, write_image_set
    from loupe.metrics.scoring import draws_by_name

    metadata = {"prompts": json.dumps(evaluated.prompts)}
    arrays = {"counts": evaluated.resampling.counts_RP, **draws_by_name(evaluated.scores)}
    files = {RESAMPLES: write_arrays(folder / RESAMPLES, arrays, metadata)}
    for step, images in evaluated.sets.items():
        files.update(write_image_set(folder, step_name(step), images))
    return files


if __name__ == "__main__":
    run_stage("evaluate", __doc__, evaluate)
