"""The demo's small classifier as an extractor. Its scores carry names of their own, never `fid`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from numpy.typing import NDArray

from loupe.atomic_io import sha256_file
from loupe.errors import PipelineError
from loupe.evaluation_records import ExtractorInfo
from loupe.metric_specs import DEMO_CLASSIFIER
from loupe.metrics.images import Pixels, stacked
from loupe.metrics.networks import inference, require_trained

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def demo_classifier_info(folder: Path) -> ExtractorInfo:
    """Return what the classifier in `folder` is; PipelineError when it is not there."""
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise PipelineError(
            f"evaluate.extractors names demo, but {folder} lacks {' and '.join(missing)}. "
            "Restore data/demo from git, or run: make demo-kit"
        )
    return ExtractorInfo(
        name=DEMO_CLASSIFIER,
        role="inception",
        kind="domain_trained",
        sha256=sha256_file(folder / WEIGHTS),
        resize="area to 64 px",
    )


def demo_colours(folder: Path) -> tuple[str, ...]:
    """Return the names of the classifier's colour classes, in the order of its logits."""
    return tuple(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["colours"])


def load_demo_classifier(folder: Path, device: str) -> Callable[[Sequence[Pixels]], Mapping[str, NDArray]]:
    """Return images -> {features [B, D], logits [B, types x colours] joint log-probabilities, colour_logits [B, C]}."""
    import torch

    from loupe.metrics.classifier import load_classifier

    classifier = load_classifier(folder)
    require_trained(classifier, folder / WEIGHTS)
    classifier.to(device)

    def extract(images: Sequence[Pixels]) -> Mapping[str, NDArray]:
        with inference():
            output = classifier(torch.from_numpy(stacked(images)).to(device).float() / 255)
            logits = output.joint_log_probabilities()
        return {
            "features": output.features.cpu().numpy(),
            "logits": logits.cpu().numpy(),
            "colour_logits": output.colour.cpu().numpy(),
        }

    return extract
