"""Optional scorers in the format of transformers: DINOv2, preference and aesthetic models, found on disk and checked.

Only safetensors, only files that are there: a folder, or the Hugging Face cache, where each file is named by its own
SHA-256, so that an altered one is told. A model of any other place bears its hash in its name, never a standard one.
Loading: loupe/metrics/transformer_networks.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loupe.atomic_io import sha256_file
from loupe.errors import PipelineError, UnknownNameError
from loupe.evaluation_records import ExtractorInfo
from loupe.metrics.cached_files import is_cached_file

WEIGHTS, CONFIG, PROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
AESTHETIC_LABEL = "aesthetic"

Role = Literal["features", "preference", "aesthetic"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What an entry of evaluate.extractors may begin with."""

    role: Role
    default: str | None
    """Hub id that the entry means without a colon."""
    example: str
    needs: str
    """What its configuration must say."""


KINDS = {
    "dinov2": Kind("features", "facebook/dinov2-base", "dinov2:facebook/dinov2-large", "model_type dinov2"),
    "preference": Kind("preference", None, "preference:yuvalkirstain/PickScore_v1", "model_type clip"),
    "aesthetic": Kind("aesthetic", None, "aesthetic:cafeai/cafe_aesthetic", f"a class named {AESTHETIC_LABEL}"),
}


@dataclass(frozen=True, slots=True)
class TransformerSource:
    """Where one model lies; everything is on disk."""

    role: Role
    name: str
    """Last part of the Hub id, or name of the folder."""
    folder: Path
    from_hub: bool

    @property
    def weights(self) -> Path:
        """The one file of weights."""
        return self.folder / WEIGHTS

    @property
    def settings_files(self) -> tuple[Path, ...]:
        """Files beside the weights that decide what comes out too."""
        names = (CONFIG, PROCESSOR, *(TOKENIZER_FILES if self.role == "preference" else ()))
        return tuple(self.folder / name for name in names if (self.folder / name).is_file())


def find_transformer(kind_name: str, place: str) -> TransformerSource:
    """Return the model of `<kind>:<Hub id or folder>`; PipelineError when it is not there or of another kind."""
    kind = KINDS[kind_name]
    place = place or kind.default or ""
    entry = f"evaluate.extractors names {kind_name}{f':{place}' if place else ''}"
    if not place:
        raise UnknownNameError(f"{entry}, but not which; give a Hub id or a folder, e.g. {kind.example}.")
    folder = Path(place).expanduser()
    from_hub = not folder.is_dir()
    if from_hub:
        folder = _cached_folder(place, entry)
    missing = [name for name in (WEIGHTS, CONFIG, PROCESSOR) if not (folder / name).is_file()]
    if missing:
        raise PipelineError(f"{entry}, but {folder} lacks {', '.join(missing)}. {_how_to_get(place, from_hub)}")
    config = _settings(folder / CONFIG)
    if not _is_of_kind(kind.role, config):
        raise PipelineError(f"{entry}, but {folder / CONFIG} has not {kind.needs}. Name another model.")
    name = place.rpartition("/")[2] if from_hub else folder.resolve().name
    return TransformerSource(role=kind.role, name=name, folder=folder, from_hub=from_hub)


def transformer_info(source: TransformerSource) -> ExtractorInfo:
    """Return what the model is, hashing its weights; PipelineError when a file of the cache was altered."""
    sha256 = sha256_file(source.weights)
    known = source.from_hub and is_cached_file(source.weights, sha256)
    resize = f"as its {PROCESSOR} says ({_resize(source)})"
    name = source.name if known else f"{source.name}@{sha256[:8]}"
    kind = "standard" if known else "custom"
    return ExtractorInfo(name=name, role=source.role, kind=kind, sha256=sha256, resize=resize)


def _cached_folder(hub_id: str, entry: str) -> Path:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(hub_id, CONFIG)
    except HFValidationError:
        found = None
    if not isinstance(found, str):
        raise PipelineError(f"{entry}, which is neither a folder nor in the cache. {_how_to_get(hub_id, True)}")
    return Path(found).parent


def _how_to_get(place: str, from_hub: bool) -> str:
    if not from_hub:
        return "Save the model there with save_pretrained (safetensors) and its image processor."
    return f"Fetch it once where there is a network: hf download {place}; or name a folder that holds it."


def _settings(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise PipelineError(f"{path} cannot be read: {error}. Get the model anew.") from None
    if not isinstance(content, dict):
        raise PipelineError(f"{path} holds no settings. Get the model anew.")
    return content


def _is_of_kind(role: Role, config: dict[str, Any]) -> bool:
    if role == "aesthetic":
        return AESTHETIC_LABEL in (config.get("id2label") or {}).values()
    return config.get("model_type") in {"features": ("dinov2", "dinov2_with_registers"), "preference": ("clip",)}[role]


def _resize(source: TransformerSource) -> str:
    settings = _settings(source.folder / PROCESSOR)
    size = settings.get("crop_size") if settings.get("do_center_crop") else settings.get("size")
    return json.dumps(size, sort_keys=True).strip("{}").replace('"', "") or "no resize"
