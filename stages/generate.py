"""Stage generate: draw every prompt and seed with the base model and every checkpoint.

It reads prompts from params.yaml and captions of the val split; the test split stays closed to it. Several processes
(`accelerate launch`, or LOUPE_LAUNCH) share the pictures out and give the same files as one.
"""

from __future__ import annotations

from loupe.params import Params
from loupe.paths import ProjectPaths
from loupe.stage import report_counts, run_stage
from loupe.workstore import WorkStore


def generate(params: Params, paths: ProjectPaths, store: WorkStore) -> None:
    """Write data/samples."""
    from loupe.atomic_io import empty_folder, read_record, read_records
    from loupe.diffusion.generation import render_samples
    from loupe.diffusion.processes import joined_processes
    from loupe.diffusion.prompts import caption_prompts, fixed_prompts
    from loupe.diffusion.sample_plan import read_adapter_source
    from loupe.diffusion.sampling import SamplingSettings
    from loupe.records import BASE_STEP, CaptionRecord, DatasetManifest

    options = params.generate
    dataset = read_record(paths.dataset / "manifest.json", DatasetManifest, made_by="prepare")
    captions = read_records(paths.dataset / "val" / "captions.jsonl", CaptionRecord, made_by="prepare")
    source = read_adapter_source(
        params.model.base, params.model.revision, demo_folder=paths.demo, checkpoints_folder=paths.checkpoints
    )
    with joined_processes() as processes:
        if processes.is_main:
            empty_folder(paths.samples)
        rendered = render_samples(
            source,
            steps=[BASE_STEP, *(info.step for info in source.checkpoints.checkpoints)],
            prompts=[
                *fixed_prompts(options.prompts, known_colours=dataset.attribute_counts.get("colour", {})),
                *caption_prompts(captions, split="val", count=options.val_captions, seed=params.seed),
            ],
            seeds_per_prompt=options.seeds_per_prompt,
            purpose="generate",
            root_seed=params.seed,
            settings=SamplingSettings.square(options, side_px=dataset.resolution_px),
            batch_size=options.batch_size,
            output=paths.samples,
            store=store,
            processes=processes,
        )
    if not processes.is_main:
        return
    samples = rendered.manifest.samples
    n_invalid = sum(sample.invalid_reason is not None for sample in samples)
    if n_invalid:
        print(f"warning: {n_invalid} of {len(samples)} pictures are invalid; data/samples/manifest.json says why.")
    report_counts("generate", computed=rendered.n_computed, reused=rendered.n_reused)


if __name__ == "__main__":
    run_stage("generate", __doc__, generate, may_be_many=True)
