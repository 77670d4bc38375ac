"""Look once at the test split: base model and selected checkpoint on test captions, new seeds and the test photos.

Reads metrics/selection.json, the checkpoints and data/dataset/test; writes data/confirmation, metrics/final.csv and,
last, metrics/final.json. No other stage opens the test split, so these numbers were chosen by nothing, unless it was
looked at before with another choice: that is remembered in .work and said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loupe.atomic_io import empty_folder, read_record, write_csv, write_json, write_record
from loupe.evaluation_records import PhotoDraws, ReferenceManifest, Selection
from loupe.looks import look_note, remember_look
from loupe.params import Params
from loupe.paths import ProjectPaths
from loupe.records import BASE_STEP, CaptionRecord, CheckpointsManifest, DatasetManifest
from loupe.stage import report_counts, run_stage
from loupe.workstore import WorkStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loupe.diffusion.generation import RenderedSamples

STREAM = 10


def confirm(params: Params, paths: ProjectPaths, store: WorkStore) -> None:
    """Run the stage; see the module's docstring."""
    import numpy as np

    from loupe.diffusion.device import choose_device, device_identity
    from loupe.diffusion.device_memory import told_when_full
    from loupe.metrics import tables
    from loupe.metrics.evaluation import evaluate_samples
    from loupe.metrics.evaluation_files import CONFIRMED, evaluation_manifest, write_features
    from loupe.metrics.extractor_keys import Machine
    from loupe.metrics.extractors import resolve_extractors
    from loupe.metrics.image_set import RealPhotos
    from loupe.metrics.image_set_files import read_image_set, write_image_set
    from loupe.metrics.measure import measure_images
    from loupe.metrics.nulls import photo_scores
    from loupe.metrics.recommendation import gates_failed_on_test
    from loupe.metrics.samples import photo_rows, split_captions

    settings = params.evaluate
    policy = choose_device()
    machine = Machine(policy.device, device_identity(policy))
    extractors = resolve_extractors(settings.extractors, demo_folder=paths.demo, machine=machine)
    reference = read_record(paths.reference / "manifest.json", ReferenceManifest, made_by="reference")
    extractors = extractors.as_in(reference)
    train = read_image_set(paths.reference, "train", reference.files, made_by="reference")
    selection = read_record(paths.metrics / "selection.json", Selection, made_by="select")
    dataset = read_record(paths.dataset / "manifest.json", DatasetManifest, made_by="prepare")
    captions = split_captions(dataset, paths.dataset, "test")
    photos = photo_rows(captions, paths.dataset)

    rendered = _render(params, paths, store, captions, step=selection.step)
    common = {"extractors": extractors, "store": store, "batch_size": settings.batch_size}
    with told_when_full(policy.device):
        test, _ = measure_images(photos, what="test photos", **common)
        real = RealPhotos(train=train, held_out=test)
        evaluated = evaluate_samples(
            rendered.manifest,
            paths.confirmation,
            real=real,
            n_draws=settings.bootstrap_draws,
            rng=np.random.default_rng([params.seed, 4]),
            made_by="confirm",
            **common,
        )
    size = {"n_generated": evaluated.n_images, "n_prompts": len(evaluated.prompts)}
    draws = PhotoDraws(**size, n_draws=settings.null_draws, seed=params.seed, stream=STREAM)
    beside = photo_scores(real, evaluated.specs, draws)
    files = write_features(paths.confirmation, evaluated) | write_image_set(paths.confirmation, "test", test)
    places = {"samples": paths.confirmation, "reference": paths.reference, "files": files}
    manifest = evaluation_manifest(evaluated, extractors, **places, **beside, photo_draws=draws, targets={})
    write_record(paths.confirmation / CONFIRMED, manifest)
    write_csv(paths.metrics / "final.csv", tables.FINAL_COLUMNS, tables.final_rows(evaluated, **beside))
    look = {"test_sha256": dataset.captions_sha256["test"], "step": selection.step}
    looks = remember_look(paths.work, rendered.manifest, extractors.infos, **look)
    failed = gates_failed_on_test(evaluated, params.select)
    final = tables.final(evaluated, extractors.infos, verdict=selection.verdict, gates_failed=failed)
    write_json(paths.metrics / "final.json", final)
    for line in (*evaluated.said, f"gates failed: {failed or 'none'}", *extractors.notes, look_note(looks)):
        print(f"confirm: on test: {line}")
    report_counts("confirm", computed=rendered.n_computed, reused=rendered.n_reused)


def _render(
    params: Params, paths: ProjectPaths, store: WorkStore, captions: Sequence[CaptionRecord], *, step: int
) -> RenderedSamples:
    from loupe.diffusion.base_model import base_model_info, resolve_base_model
    from loupe.diffusion.generation import render_samples
    from loupe.diffusion.prompts import caption_prompts
    from loupe.diffusion.sample_plan import AdapterSource
    from loupe.diffusion.sampling import SamplingSettings

    dataset = read_record(paths.dataset / "manifest.json", DatasetManifest, made_by="prepare")
    checkpoints = read_record(paths.checkpoints / "manifest.json", CheckpointsManifest, made_by="train")
    base = resolve_base_model(params.model.base, params.model.revision, demo_folder=paths.demo)
    info = base_model_info(base, name=params.model.base, revision=params.model.revision)
    return render_samples(
        AdapterSource(base_folder=base, base_model=info, checkpoints_folder=paths.checkpoints, checkpoints=checkpoints),
        steps=[BASE_STEP, step],
        prompts=caption_prompts(captions, split="test", count=params.confirm.test_captions, seed=params.seed),
        seeds_per_prompt=params.confirm.seeds_per_prompt,
        purpose="confirm",
        root_seed=params.seed,
        settings=SamplingSettings.square(params.generate, side_px=dataset.resolution_px),
        batch_size=params.generate.batch_size,
        output=empty_folder(paths.confirmation),
        store=store,
    )


if __name__ == "__main__":
    run_stage("confirm", __doc__, confirm)
