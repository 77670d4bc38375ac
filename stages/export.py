"""Stage export: the recommended checkpoint as files that other programs load, with a model card.

It converts and describes; it trains, draws and measures nothing. `python -m loupe.cli export --step N` exports another.
"""

from __future__ import annotations

from loupe.params import Params
from loupe.paths import ProjectPaths
from loupe.stage import run_stage
from loupe.workstore import WorkStore


def export(params: Params, paths: ProjectPaths, store: WorkStore) -> None:
    """Write data/export."""
    from loupe.atomic_io import empty_folder, read_record
    from loupe.diffusion.export import export_checkpoint, read_evidence
    from loupe.diffusion.model_card import SuggestedSettings
    from loupe.diffusion.sample_plan import read_adapter_source
    from loupe.evaluation_records import Selection
    from loupe.records import DatasetManifest

    del store  # converting takes less time than finding it again
    selection = read_record(paths.metrics / "selection.json", Selection, made_by="select")
    source = read_adapter_source(
        params.model.base, params.model.revision, demo_folder=paths.demo, checkpoints_folder=paths.checkpoints
    )
    manifest = export_checkpoint(
        source,
        step=selection.step,
        name=params.export.name,
        trigger=params.export.trigger,
        dataset=read_record(paths.dataset / "manifest.json", DatasetManifest, made_by="prepare"),
        evidence=read_evidence(paths.metrics / "checkpoints.csv", step=selection.step, selection=selection),
        settings=SuggestedSettings(
            guidance_scale=params.generate.guidance_scale,
            num_inference_steps=params.generate.num_inference_steps,
            negative_prompt=params.generate.negative_prompt,
        ),
        full_pipeline=params.export.full_pipeline,
        output=empty_folder(paths.export),
    )
    print(f"export: {selection.verdict}, step {manifest.step}: {len(manifest.files)} files in {paths.export}")


if __name__ == "__main__":
    run_stage("export", __doc__, export)
