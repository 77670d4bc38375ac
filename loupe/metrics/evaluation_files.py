"""What scores were computed from, on disk: features, resamples, and a manifest of where every number comes from.

`loupe verify` reads it back and computes the scores again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loupe.atomic_io import sha256_file
from loupe.evaluation_records import EvaluationManifest
from loupe.metrics.controls import FILES
from loupe.metrics.evaluation import RESAMPLES, Evaluated
from loupe.metrics.extractors import Extractors
from loupe.metrics.image_set import ImageSet
from loupe.metrics.image_set_files import write_arrays, write_image_set
from loupe.metrics.scoring import draws_by_name
from loupe.paths import step_name
from loupe.workstore import library_versions

CONFIRMED = "evaluation.json"
"""In data/confirmation, where the manifest is that of the pictures: what the scores on the test split come from."""
LIBRARIES = ("numpy", "open-clip-torch", "pillow", "scipy", "torch", "torch-fidelity", "transformers")


def write_features(
    folder: Path, evaluated: Evaluated, controls: Mapping[str, ImageSet] | None = None
) -> dict[str, str]:
    """Write features of every step and control, and the resamples with their draws; return file name -> SHA-256."""
    metadata = {"prompts": json.dumps(evaluated.prompts)}
    arrays = {"weights": evaluated.resampling.weights_RP, **draws_by_name(evaluated.scores)}
    files = {RESAMPLES: write_arrays(folder / RESAMPLES, arrays, metadata)}
    for step, images in evaluated.sets.items():
        files.update(write_image_set(folder, step_name(step), images))
    for control, images in (controls or {}).items():
        files.update(write_image_set(folder, FILES[control], images))
    return files


def evaluation_manifest(
    evaluated: Evaluated,
    extractors: Extractors,
    *,
    samples: Path,
    reference: Path,
    files: Mapping[str, str],
    **compared: Any,
) -> EvaluationManifest:
    """Return the provenance of the scores of the samples in `samples` beside the photos in `reference` (folders).

    `compared` are nulls and real_scores and, where there are such, controls and targets.
    """
    return EvaluationManifest(
        extractors=extractors.infos,
        metric_keys=tuple(evaluated.specs),
        n_real=evaluated.n_real,
        samples_sha256=sha256_file(samples / "manifest.json"),
        reference_sha256=sha256_file(reference / "manifest.json"),
        best_steps=dict(evaluated.best_steps),
        absent=evaluated.absent,
        unreadable=evaluated.unreadable,
        left_out=dict(extractors.left_out),
        findings=(*evaluated.findings, *extractors.notes),
        library_versions=library_versions(*LIBRARIES),
        files=dict(files),
        **compared,
    )
