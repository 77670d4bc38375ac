"""Score the base model and every checkpoint: per checkpoint and per picture, with intervals paired by prompt.

Reads data/samples, the list of checkpoints, data/reference, the validation losses of train and the extractors; writes
checkpoints.csv, per_image.csv, overfitting.csv and summary.json in metrics/, and data/evaluation, its manifest last.
Features of pictures that were measured before come from the work store; when all are there, no network is loaded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loupe.atomic_io import empty_folder, read_record, write_csv, write_json, write_record
from loupe.evaluation_records import ReferenceManifest
from loupe.params import Params
from loupe.paths import ProjectPaths
from loupe.records import CheckpointsManifest, SamplesManifest
from loupe.stage import report_counts, run_stage
from loupe.workstore import WorkStore

if TYPE_CHECKING:
    from pathlib import Path

    from loupe.evaluate_params import TargetParams
    from loupe.metrics.evaluation import Evaluated


def evaluate(params: Params, paths: ProjectPaths, store: WorkStore) -> None:
    """Run the stage; see the module's docstring."""
    import numpy as np

    from loupe.diffusion.device import choose_device, device_identity
    from loupe.diffusion.device_memory import told_when_full
    from loupe.metrics.controls import control_scores, control_sets
    from loupe.metrics.evaluation import aims_of, evaluate_samples
    from loupe.metrics.evaluation_files import evaluation_manifest, write_features
    from loupe.metrics.extractor_keys import Machine
    from loupe.metrics.extractors import resolve_extractors
    from loupe.metrics.image_set import RealPhotos
    from loupe.metrics.image_set_files import read_image_set
    from loupe.metrics.overfitting import read_validation_losses
    from loupe.metrics.same_run import require_same_run

    settings = params.evaluate
    policy = choose_device()
    machine = Machine(policy.device, device_identity(policy))
    extractors = resolve_extractors(settings.extractors, demo_folder=paths.demo, machine=machine)
    reference = read_record(paths.reference / "manifest.json", ReferenceManifest, made_by="reference")
    extractors = extractors.as_in(reference)
    samples = read_record(paths.samples / "manifest.json", SamplesManifest, made_by="generate")
    require_same_run(samples, read_record(paths.checkpoints / "manifest.json", CheckpointsManifest, made_by="train"))
    losses = read_validation_losses(paths.metrics, samples.steps)
    train, val = (read_image_set(paths.reference, s, reference.files, made_by="reference") for s in ("train", "val"))
    real = RealPhotos(train=train, held_out=val)
    common = {"extractors": extractors, "store": store, "batch_size": settings.batch_size}
    with told_when_full(policy.device):
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
        controls = control_sets(samples, real, rng=np.random.default_rng([params.seed, 6]), **common)
    evaluated = replace(evaluated, losses=losses)
    _write_metrics(paths.metrics, evaluated, reference)
    manifest = evaluation_manifest(
        evaluated,
        extractors,
        samples=paths.samples,
        reference=paths.reference,
        files=write_features(empty_folder(paths.evaluation), evaluated, controls),
        nulls=reference.nulls,
        real_scores=reference.real_scores,
        photo_draws=reference.photo_draws,
        controls=control_scores(controls, real, evaluated.specs),
        **_targets(settings.targets, evaluated),
    )
    write_record(paths.evaluation / "manifest.json", manifest)
    for line in (*evaluated.said, *extractors.notes):
        print(f"evaluate: {line}")
    report_counts("evaluate", computed=evaluated.measured.computed, reused=evaluated.measured.reused)


def _targets(asked: TargetParams, evaluated: Evaluated) -> dict[str, dict[str, float]]:
    """Return the targets by the metric they speak of, and those that speak of none."""
    of_training = {"train_loss"}
    by_field = asked.model_dump(exclude=of_training)
    targets = {key: by_field[spec.target] for key, spec in evaluated.specs.items() if spec.target}
    spoken_of = {spec.target for spec in evaluated.specs.values()}
    unmeasured = {field: target for field, target in by_field.items() if field not in spoken_of}
    return {"targets": targets, "unmeasured_targets": unmeasured}


def _write_metrics(folder: Path, evaluated: Evaluated, reference: ReferenceManifest) -> None:
    from loupe.metric_specs import checkpoint_columns
    from loupe.metrics import overfitting, tables

    rows = tables.checkpoint_rows(evaluated)
    write_csv(folder / "checkpoints.csv", checkpoint_columns(evaluated.specs), rows)
    write_csv(folder / "per_image.csv", tables.per_image_columns(evaluated.specs), tables.per_image_rows(evaluated))
    signs = overfitting.overfitting_rows(rows, evaluated.losses, evaluated.specs)
    write_csv(folder / "overfitting.csv", overfitting.overfitting_columns(evaluated.specs, evaluated.losses), signs)
    write_json(folder / "summary.json", tables.summary(evaluated, reference.nulls))


if __name__ == "__main__":
    run_stage("evaluate", __doc__, evaluate)
