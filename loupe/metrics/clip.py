"""open_clip models as extractors: the demo's own folder, or an architecture with a pretrained tag or local weights.

Only safetensors are loaded and nothing is downloaded: what is not in the hub cache is a sentence that says how to get
it. A pretrained tag is believed when the cache's own name of its file, a SHA-256, agrees; any other file bears its hash
in its name. The image pipeline is open_clip's own, with the resize, crop and normalisation that the weights need
(clip_settings.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loupe.atomic_io import sha256_file
from loupe.errors import PipelineError, UnknownNameError, nearest_names
from loupe.evaluation_records import ExtractorInfo
from loupe.metric_specs import CLIP_FILE, DEMO_CLIP
from loupe.metrics.cached_files import is_cached_file
from loupe.metrics.clip_settings import settings_of_tag, tag_of_file
from loupe.metrics.images import Pixels
from loupe.metrics.networks import inference, require_trained

CONFIG = "open_clip_config.json"
SAFETENSORS_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")


@dataclass(frozen=True, slots=True)
class ClipSource:
    """Where one open_clip model comes from; everything is on disk."""

    name: str
    """<architecture>/<tag or stem of the file>, or demo-clip."""
    model: str
    """open_clip's name: an architecture, or local-dir:<folder>."""
    weights: Path
    bpe: Path | None
    """Merges of a tokenizer of its own; None takes the architecture's."""
    preprocess: Mapping[str, Any]
    image_size_px: int
    tagged: bool = False
    """Whether a pretrained tag of open_clip's stands for the weights."""
    as_tag: str | None = None
    """The pretrained tag whose settings a file was taken to need."""

    @property
    def settings_files(self) -> tuple[Path, ...]:
        """Files beside the weights that decide the features too."""
        return () if self.bpe is None else (self.weights.parent / CONFIG, self.bpe)

    @property
    def resize(self) -> str:
        """How an image becomes the model's input, in words."""
        interpolation = self.preprocess.get("interpolation", "bicubic")
        mode = self.preprocess.get("resize_mode", "shortest")
        how = {"shortest": "shortest side, centre crop", "longest": "longest side, padded", "squash": "squashed"}[mode]
        normalised = f", normalised as for {self.as_tag}" if self.as_tag else ""
        return f"Pillow {interpolation} to {self.image_size_px} px ({how}){normalised}"


@dataclass(frozen=True, slots=True)
class ClipNetwork:
    """A loaded model: `images` -> {image [B, D]}, `texts` -> {text [B, D], n_tokens [B], context_length [B]}."""

    images: Callable[[Sequence[Pixels]], Mapping[str, NDArray]]
    texts: Callable[[Sequence[str]], Mapping[str, NDArray]]


def find_demo_clip(folder: Path) -> ClipSource:
    """Return the demo's model; PipelineError when a file of it is not there."""
    weights = next((folder / name for name in SAFETENSORS_NAMES if (folder / name).is_file()), None)
    merges = sorted(folder.glob("*.txt.gz"))
    if weights is None or not merges or not (folder / CONFIG).is_file():
        raise PipelineError(
            f"evaluate.extractors names demo-clip, but {folder} lacks its {CONFIG}, safetensors weights or BPE merges. "
            "Restore data/demo from git, or run: make demo-kit"
        )
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return ClipSource(
        name=DEMO_CLIP,
        model=f"local-dir:{folder}",
        weights=weights,
        bpe=merges[0],
        preprocess=config.get("preprocess_cfg", {}),
        image_size_px=config["model_cfg"]["vision_cfg"]["image_size"],
    )


def find_clip(name: str) -> ClipSource:
    """Return the model of `<architecture>/<pretrained tag>` or `<architecture>/<file>.safetensors[@<pretrained tag>]`.

    A file's preprocessing is that of the tag behind the @, or else what all tags of its architecture have in common.
    Raises PipelineError where the tags differ and the entry names none, where the activation (QuickGELU) of the tag is
    not the architecture's, and where anything is not there.
    """
    import open_clip

    architecture, _, tag = name.partition("/")
    config = open_clip.get_model_config(architecture)
    if config is None or not tag:
        near = ", ".join(nearest_names(architecture, open_clip.list_models())) or "open_clip.list_models()"
        raise UnknownNameError(
            f"evaluate.extractors names {name!r}; expected <open_clip architecture>/<pretrained tag or local "
            f"safetensors file>, e.g. ViT-B-32/laion2b_s34b_b79k. Near architectures: {near}."
        )
    image_size_px = config["vision_cfg"]["image_size"]
    local = CLIP_FILE.fullmatch(name)
    if local is None:
        preprocess = settings_of_tag(architecture, tag, entry=name)
        weights = _cached_weights(name, open_clip.get_pretrained_cfg(architecture, tag))
        return ClipSource(name, architecture, weights, None, preprocess, image_size_px, tagged=True)
    weights = Path(local["file"]).expanduser()
    if not weights.is_file():
        raise PipelineError(f"evaluate.extractors names {name!r}, but {weights} is not there. Correct the path.")
    as_tag = local["tag"] or tag_of_file(architecture, entry=name)
    preprocess = settings_of_tag(architecture, as_tag, entry=name) if as_tag else {}
    return ClipSource(
        f"{architecture}/{weights.stem}", architecture, weights, None, preprocess, image_size_px, as_tag=as_tag
    )


def clip_info(source: ClipSource) -> ExtractorInfo:
    """Return what the model is, hashing its weights; PipelineError when a file of the cache was altered."""
    sha256 = sha256_file(source.weights)
    name, kind = f"{source.name}@{sha256[:8]}", "custom"
    if source.name == DEMO_CLIP:
        name, kind = source.name, "domain_trained"
    elif source.tagged and is_cached_file(source.weights, sha256):
        name, kind = source.name, "standard"
    return ExtractorInfo(name=name, role="clip", kind=kind, sha256=sha256, resize=source.resize)


def load_clip(source: ClipSource, device: str) -> ClipNetwork:
    """Load the model in float32 and return what it does with images and texts; PipelineError when it does not load."""
    import open_clip
    import torch
    from PIL import Image

    local_folder = source.model.startswith("local-dir:")
    try:
        model = open_clip.create_model(
            source.model,
            pretrained=None if local_folder else str(source.weights),
            force_preprocess_cfg=None if local_folder else dict(source.preprocess),
        )
        tokenizer = _tokenizer(source)
    except (AssertionError, RuntimeError, ValueError, OSError) as error:  # open_clip asserts on other shapes
        raise PipelineError(f"{source.name}: {source.weights} or its tokenizer does not load: {error}") from None
    require_trained(model, source.weights)
    model = model.to(device).eval()
    cfg = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    preprocess = open_clip.transform.image_transform_v2(cfg, is_train=False)

    def images(batch: Sequence[Pixels]) -> Mapping[str, NDArray]:
        pictures = torch.stack([preprocess(Image.fromarray(pixels)) for pixels in batch])
        with inference():
            return {"image": model.encode_image(pictures.to(device)).float().cpu().numpy()}

    def texts(batch: Sequence[str]) -> Mapping[str, NDArray]:
        with inference():
            features = model.encode_text(tokenizer(list(batch)).to(device)).float().cpu().numpy()
        lengths = np.array([_n_tokens(tokenizer, text) for text in batch], dtype=np.int64)
        return {"text": features, "n_tokens": lengths, "context_length": np.full(len(batch), tokenizer.context_length)}

    return ClipNetwork(images=images, texts=texts)


def _tokenizer(source: ClipSource) -> Any:
    import open_clip

    if source.bpe is None:
        return open_clip.get_tokenizer(source.model)
    config = json.loads((source.weights.parent / CONFIG).read_text(encoding="utf-8"))
    context_length = config["model_cfg"]["text_cfg"]["context_length"]
    return open_clip.SimpleTokenizer(bpe_path=str(source.bpe), context_length=context_length)


def _n_tokens(tokenizer: Any, text: str) -> int:
    """Length of the text with its start and end marks; open_clip cuts at the context length without a word."""
    if hasattr(tokenizer, "encode"):
        return len(tokenizer.encode(text)) + 2
    return len(tokenizer.tokenizer(text)["input_ids"])


def _cached_weights(name: str, pretrained: Mapping[str, Any]) -> Path:
    """Return the tag's safetensors in the Hugging Face cache; never downloads."""
    from huggingface_hub import try_to_load_from_cache

    architecture, _, tag = name.partition("/")
    repository, _, file_name = str(pretrained.get("hf_hub", "")).rpartition("/")
    names = [Path(file_name).with_suffix(".safetensors").name] if file_name else list(SAFETENSORS_NAMES)
    found = [try_to_load_from_cache(repository, candidate) for candidate in names if repository]
    path = next((Path(item) for item in found if isinstance(item, str)), None)
    if path is not None:
        return path
    where = f"{repository or 'no repository'}: {' or '.join(names)}"
    fetch = f"import open_clip; open_clip.create_model('{architecture}', pretrained='{tag}')"
    raise PipelineError(
        f"evaluate.extractors names {name!r}, and its weights are not in the Hugging Face cache ({where}). Fetch them "
        f'once where there is a network: python -c "{fetch}"; or name a local file: '
        f"{architecture}/<file>.safetensors@{tag}. demo-clip needs no download; its score is clip_demo."
    )
