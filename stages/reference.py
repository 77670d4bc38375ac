"""Measure the real train and val photos: their features, what they score themselves, and the nulls at the N in use.

Reads data/dataset (never its test split) and the extractors; writes data/reference, its manifest last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from loupe.atomic_io import empty_folder, read_record, write_record
from loupe.evaluation_records import Null, PhotoDraws, ReferenceManifest
from loupe.params import GenerateParams, Params
from loupe.paths import ProjectPaths
from loupe.records import DatasetManifest, Split
from loupe.stage import report_counts, run_stage
from loupe.workstore import WorkStore

SPLITS: tuple[Split, ...] = ("train", "val")
STREAM = 1


def reference(params: Params, paths: ProjectPaths, store: WorkStore) -> None:
    """Run the stage; see the module's docstring."""
    from loupe.diffusion.device import choose_device, device_identity
    from loupe.diffusion.device_memory import told_when_full
    from loupe.metric_specs import applicable_specs
    from loupe.metrics.extractor_keys import Machine
    from loupe.metrics.extractors import resolve_extractors
    from loupe.metrics.image_set import RealPhotos
    from loupe.metrics.image_set_files import write_image_set
    from loupe.metrics.measure import measure_images
    from loupe.metrics.nulls import photo_scores
    from loupe.metrics.samples import photo_rows, split_captions

    policy = choose_device()
    machine = Machine(policy.device, device_identity(policy))
    extractors = resolve_extractors(params.evaluate.extractors, demo_folder=paths.demo, machine=machine)
    dataset = read_record(paths.dataset / "manifest.json", DatasetManifest, made_by="prepare")
    images, measured = {}, []
    with told_when_full(policy.device):
        for split in SPLITS:
            rows = photo_rows(split_captions(dataset, paths.dataset, split), paths.dataset)
            images[split], counts = measure_images(
                rows, extractors, store, batch_size=params.evaluate.batch_size, what=f"reference: {split} photos"
            )
            measured.append(counts)
    real = RealPhotos(train=images["train"], held_out=images["val"])

    specs = applicable_specs(extractors.infos)
    n_prompts = _n_prompts(params.generate, n_val=dataset.n_examples["val"])
    draws = PhotoDraws(
        n_generated=n_prompts * params.generate.seeds_per_prompt,
        n_prompts=n_prompts,
        n_draws=params.evaluate.null_draws,
        seed=params.seed,
        stream=STREAM,
    )
    scores = photo_scores(real, specs, draws)

    folder = empty_folder(paths.reference)
    files = {}
    for split in SPLITS:
        files.update(write_image_set(folder, split, images[split]))
    manifest = ReferenceManifest(
        extractors=extractors.infos,
        n_real={split: len(images[split]) for split in SPLITS},
        **scores,
        photo_draws=draws,
        left_out=dict(extractors.left_out),
        surroundings=extractors.surroundings,
        files=files,
    )
    write_record(folder / "manifest.json", manifest)
    for line in (*_said(manifest.nulls), *extractors.notes):
        print(f"reference: {line}")
    report_counts(
        "reference",
        computed=sum(counts.computed for counts in measured),
        reused=sum(counts.reused for counts in measured),
    )


def _said(nulls: Mapping[str, Null]) -> Iterator[str]:
    for key, null in nulls.items():
        against = f" against {null.n_b}" if null.n_b else ""
        yield f"{key} of {null.n_a} real photos{against}: {null.mean:.4g} [{null.lo:.4g}, {null.hi:.4g}]"


def _n_prompts(generate: GenerateParams, *, n_val: int) -> int:
    """Return how many prompts each checkpoint draws."""
    return len(generate.prompts) + min(generate.val_captions, n_val)


if __name__ == "__main__":
    run_stage("reference", __doc__, reference)
