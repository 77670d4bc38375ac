"""Exporting one checkpoint: its files in every form, the model card with the evidence, and the manifest, last.

It chooses no checkpoint: the step is handed in, recommended by `select` or named by a person.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from loupe.atomic_io import write_record, write_text
from loupe.diffusion.adapter import AdapterConfig
from loupe.diffusion.export_lora import ExportLabels, export_adapter, exported_file
from loupe.diffusion.model_card import Evidence, ScoreLine, SuggestedSettings, model_card
from loupe.diffusion.sample_plan import AdapterSource, verified_adapters
from loupe.errors import PipelineError
from loupe.evaluation_records import Selection
from loupe.metric_specs import known_specs
from loupe.records import BASE_STEP, DatasetManifest, ExportManifest

CARD_FILE = "README.md"


def export_checkpoint(
    source: AdapterSource,
    *,
    step: int,
    name: str,
    trigger: str,
    dataset: DatasetManifest,
    evidence: Evidence,
    settings: SuggestedSettings,
    full_pipeline: bool,
    output: Path,
) -> ExportManifest:
    """Write everything to `output`, which must be empty, and return its manifest.

    Raises PipelineError when `step` is no checkpoint of `source`, is the base model, or its file is not the one that
    was trained.
    """
    if step == BASE_STEP:
        raise PipelineError("Step 0 is the base model itself: there is no adapter to export. Name a trained step.")
    checkpoint = verified_adapters(source, [step])[step]
    labels = ExportLabels(
        name=name,
        step=step,
        trigger=trigger,
        base_model=source.base_model,
        resolution_px=dataset.resolution_px,
        n_train=dataset.n_examples["train"],
    )
    files = export_adapter(
        source.adapter_folder(step),
        text_adapter_folder=source.text_adapter_folder(step),
        base_folder=source.base_folder,
        labels=labels,
        full_pipeline=full_pipeline,
        output=output,
    )
    config = AdapterConfig(
        rank=checkpoint.rank,
        alpha=checkpoint.alpha,
        target_modules=checkpoint.target_modules,
        base_model=source.base_model.name,
        use_dora=checkpoint.use_dora,
        use_rslora=checkpoint.use_rslora,
    )
    card = output / CARD_FILE
    has_text = checkpoint.text_encoder_sha256 is not None
    written = {"full_pipeline": full_pipeline, "has_text_encoder": has_text}
    write_text(card, model_card(labels, config, dataset, evidence, settings, **written))
    manifest = ExportManifest(
        step=step,
        base_model=source.base_model,
        rank=checkpoint.rank,
        alpha=checkpoint.alpha,
        trigger=trigger,
        files=(*files, exported_file(card, "model card", output)),
    )
    write_record(output / "manifest.json", manifest)
    return manifest


def read_evidence(table: Path, *, step: int, selection: Selection | None) -> Evidence:
    """Return what metrics/checkpoints.csv says of the base model and of `step`.

    A checkpoint can be exported before it was evaluated: without the table or the row there are no scores.
    """
    rows: dict[str, dict[str, str]] = {}
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            rows = {row["step"]: row for row in csv.DictReader(file)}
    exported, base = rows.get(str(step)), rows.get(str(BASE_STEP), {})
    if exported is None:
        return Evidence(selection=selection, scores=(), n_images=None, n_real=None)
    lines = [
        ScoreLine(spec.label, spec.better, _cell(base, key), _cell(exported, key))
        for key, spec in known_specs(exported).items()
        if _cell(base, key) is not None or _cell(exported, key) is not None
    ]
    n_images, n_real = _cell(exported, "n_images"), _cell(exported, "n_real")
    return Evidence(
        selection=selection,
        scores=lines,
        n_images=None if n_images is None else int(n_images),
        n_real=None if n_real is None else int(n_real),
    )


def _cell(row: Mapping[str, str], column: str) -> float | None:
    text = row.get(column)
    return float(text) if text else None
