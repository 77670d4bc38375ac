"""Score the base model and every checkpoint: per checkpoint and per picture, with intervals paired by prompt.

Reads data/samples, data/reference and the extractors; writes metrics/checkpoints.csv, metrics/per_image.csv,
metrics/summary.json and data/evaluation, its manifest last. Features of pictures that were measured before come from
the work store; when all are there, no network is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loupe.atomic_io import empty_folder, read_record, sha256_file, write_csv, write_json, write_record
from loupe.errors import PipelineError
from loupe.params import Params
from loupe.paths import ProjectPaths, step_name
from loupe.records import EvaluationManifest, ExtractorInfo, ReferenceManifest, SamplesManifest
from loupe.stage import report_counts, run_stage
from loupe.workstore import WorkStore, library_versions

if TYPE_CHECKING:
    from loupe.metrics.measure import Measured
    from loupe.metrics.scoring import Resampling, StepScores

LIBRARIES = ("numpy", "open-clip-torch", "torch", "torch-fidelity")


def evaluate(params: Params, paths: ProjectPaths, store: WorkStore) -> None:
    """Run the stage; see the module's docstring."""
    import numpy as np

    from loupe.diffusion.device import choose_device
    from loupe.metric_specs import applicable_specs, checkpoint_columns
    from loupe.metrics import tables
    from loupe.metrics.extractors import resolve_extractors
    from loupe.metrics.image_set_files import read_image_set, write_arrays, write_image_set
    from loupe.metrics.measure import measure_images
    from loupe.metrics.samples import sample_rows, sets_by_step
    from loupe.metrics.scoring import draws_by_name, resampling_of, score_steps

    settings = params.evaluate
    extractors = resolve_extractors(
        inception=settings.inception, clip=settings.clip, demo_folder=paths.demo, device=choose_device().device
    )
    samples = read_record(paths.samples / "manifest.json", SamplesManifest, made_by="generate")
    reference = read_record(paths.reference / "manifest.json", ReferenceManifest, made_by="reference")
    _require_same_extractors(reference.extractors, extractors.infos)
    real = read_image_set(paths.reference, "val", reference.files, made_by="reference")

    rows = sample_rows(samples, paths.samples, made_by="generate")
    measured = measure_images(rows, extractors, store, batch_size=settings.batch_size, what="evaluate")
    sets = sets_by_step(samples, measured)
    specs = applicable_specs(extractors.infos)
    prompts = tuple(prompt.prompt_id for prompt in samples.prompts)
    resampling = resampling_of(prompts, settings.bootstrap_draws, np.random.default_rng([params.seed, 3]))
    scores = score_steps(sets, real, specs, resampling)

    n_images = len(prompts) * samples.seeds_per_prompt
    counts = {"n_images": n_images, "n_prompts": len(prompts), "n_real": len(real)}
    write_csv(
        paths.metrics / "checkpoints.csv",
        checkpoint_columns(specs),
        tables.checkpoint_rows(scores, samples, n_real=len(real)),
    )
    write_csv(
        paths.metrics / "per_image.csv", tables.per_image_columns(specs), tables.per_image_rows(samples, sets, specs)
    )
    write_json(paths.metrics / "summary.json", tables.summary(scores, specs, reference.nulls, **counts))
    folder = empty_folder(paths.evaluation)
    files = {"resamples.safetensors": write_arrays(folder / "resamples.safetensors", draws_by_name(scores))}
    for step, images in sets.items():
        files.update(write_image_set(folder, step_name(step), images))
    targets = {k: getattr(settings.targets, spec.target) for k, spec in specs.items() if spec.target}
    absent = {f"{step_name(s.step)}/{key}": reason for s in scores for key, reason in s.absent.items()}
    manifest = EvaluationManifest(
        extractors=extractors.infos,
        metric_keys=tuple(specs),
        nulls=reference.nulls,
        real_scores=reference.real_scores,
        n_real=len(real),
        samples_sha256=sha256_file(paths.samples / "manifest.json"),
        reference_sha256=sha256_file(paths.reference / "manifest.json"),
        targets=targets,
        absent=absent,
        findings=_findings(measured, resampling),
        library_versions=library_versions(*LIBRARIES),
        files=files,
    )
    write_record(folder / "manifest.json", manifest)
    _say(scores, manifest)
    report_counts("evaluate", computed=measured.computed, reused=measured.reused)


def _require_same_extractors(before: tuple[ExtractorInfo, ...], now: tuple[ExtractorInfo, ...]) -> None:
    if before != now:
        raise PipelineError(
            f"data/reference was measured with {', '.join(e.name for e in before)}, this run measures with "
            f"{', '.join(e.name for e in now)} (or other weights of it). Run: dvc repro reference evaluate"
        )


def _findings(measured: Measured, resampling: Resampling) -> tuple[str, ...]:
    cut = [f"longer than the text tower reads, its score speaks of the beginning: {t}" for t in measured.long_texts]
    few = [] if len(resampling.counts_RP) else ["one prompt alone: no interval can be given; add prompts"]
    return (*cut, *few)


def _say(scores: list[StepScores], manifest: EvaluationManifest) -> None:
    for step_scores in scores:
        values = ", ".join(f"{key} {estimate.value:.4g}" for key, estimate in step_scores.values.items())
        print(f"evaluate: {step_name(step_scores.step)}: {values} (n = {step_scores.n_used})")
    for place, reason in manifest.absent.items():
        print(f"evaluate: no {place}: {reason}")
    for finding in manifest.findings:
        print(f"evaluate: {finding}")


if __name__ == "__main__":
    run_stage("evaluate", __doc__, evaluate)
