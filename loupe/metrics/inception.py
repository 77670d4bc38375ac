"""The standard Inception-2015-12-05 network as an extractor, from a file whose every byte is known.

Only this network may write the keys `fid` and `inception_score`. Nothing is downloaded: a missing file is a sentence
that says where to put it. Resize and arithmetic are torch-fidelity's, which follow the original TensorFlow code.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from numpy.typing import NDArray

from loupe.errors import PipelineError
from loupe.evaluation_records import ExtractorInfo
from loupe.metric_specs import STANDARD_INCEPTION
from loupe.metrics.images import Pixels, stacked
from loupe.metrics.networks import inference

FILE_NAME = "weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE_NAME}"
RESIZE = "bilinear as in TensorFlow 1 (no antialias) to 299 px"


def find_inception(place: str) -> Path:
    """Return the weights file at `place`, or of torch's hub cache where that is ''; PipelineError when it is absent."""
    path = Path(place).expanduser() if place else _hub_checkpoints() / FILE_NAME
    if path.is_file():
        return path
    raise PipelineError(
        f"evaluate.extractors names {f'inception:{place}' if place else 'inception'}, but {path} is not there. "
        f"Download {URL} (91 MiB) to that place, or name your copy as inception:<path>. "
        "demo needs no download; its scores are fd_demo and is_demo, not FID."
    )


def inception_info(path: Path) -> ExtractorInfo:
    """Return what the file is; PipelineError when it is not, byte for byte, the known network."""
    _verified_bytes(path)
    return ExtractorInfo(name=STANDARD_INCEPTION, role="inception", kind="standard", sha256=SHA256, resize=RESIZE)


def load_inception(path: Path, device: str) -> Callable[[Sequence[Pixels]], Mapping[str, NDArray]]:
    """Return images -> {features [B, 2048] of the last pooling, logits [B, 1008] without bias}, float32.

    The hash is compared before anything is read from the bytes, and the bytes that were compared are the ones loaded.
    """
    content = _verified_bytes(path)
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=io.BytesIO(content)
    ).to(device)

    def extract(images: Sequence[Pixels]) -> Mapping[str, NDArray]:
        with inference():
            features, logits = network(torch.from_numpy(stacked(images)).to(device))
        return {"features": features.cpu().numpy(), "logits": logits.cpu().numpy()}

    return extract


def _verified_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise PipelineError(
            f"{path} is not Inception-2015-12-05: its SHA-256 is {found}, expected {SHA256}. A network with other "
            f"weights must not write `fid`. Download {URL} again."
        )
    return content


def _hub_checkpoints() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return Path(os.environ.get("TORCH_HOME", cache / "torch")).expanduser() / "hub" / "checkpoints"
