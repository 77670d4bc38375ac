"""What weights on disk need of open_clip's settings: normalisation, resize and activation go with weights, not shapes.

open_clip knows them for its pretrained tags alone; to a file it silently applies OpenAI's. So a file is taken as the
tags of its architecture are, or as the one that its entry names. It reads no weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loupe.errors import UnknownNameError

PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode")
ACTIVATION = "activation"


def settings_of_tag(architecture: str, tag: str, *, entry: str) -> dict[str, Any]:
    """Return the preprocessing of a pretrained tag, open_clip's own names of it -> values.

    Raises UnknownNameError for a tag that the architecture has not, and for one trained with QuickGELU under an
    architecture without it (or the reverse): it would load, and score wrongly.
    """
    import open_clip

    pretrained = open_clip.get_pretrained_cfg(architecture, tag)
    if not pretrained:
        known = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise UnknownNameError(
            f"evaluate.extractors names {entry!r}: {architecture} has no pretrained tag {tag!r}. Known tags: {known}; "
            "a local file must end in .safetensors."
        )
    twin, tag_is_quick, is_quick = _twin(architecture), _is_quick(pretrained), _has_quick_gelu(architecture)
    if twin and tag_is_quick != is_quick:
        raise UnknownNameError(
            f"evaluate.extractors: weights as {tag} were trained {_with(tag_is_quick)} QuickGELU, {architecture} is "
            f"{_with(is_quick)} it; the scores would be wrong without any error. Use {twin}/..."
        )
    return _preprocess(pretrained)


def tag_of_file(architecture: str, *, entry: str) -> str | None:
    """Return a tag whose settings stand for a file's, since all of the architecture agree; None where it has no tags.

    Raises UnknownNameError where they differ in preprocessing or activation, with what to write.
    """
    import open_clip

    settings = {
        tag: _settings(open_clip.get_pretrained_cfg(architecture, tag))
        for tag in open_clip.list_pretrained_tags_by_model(architecture)
    }
    differing = [key for key in (ACTIVATION, *PREPROCESS_KEYS) if len({of[key] for of in settings.values()}) > 1]
    if not differing:
        return next(iter(settings), None)
    own = _activation(_has_quick_gelu(architecture))
    groups: dict[str, list[str]] = {}
    for tag, of in settings.items():
        groups.setdefault(", ".join(f"{key} {of[key]}" for key in differing), []).append(tag)
    listed = "; ".join(f"{words}: {_few(tags)}" for words, tags in groups.items())
    example = next(tag for tag, of in settings.items() if of[ACTIVATION] == own)
    twin = _twin(architecture) if ACTIVATION in differing else None
    raise UnknownNameError(
        f"evaluate.extractors names {entry!r}, but weights of {architecture} come with different settings, and a file "
        f"does not say which it was trained with ({listed}). Write the tag whose settings it needs behind it, e.g. "
        f"{entry}@{example}.{f' Weights with the other activation belong under {twin}/.' if twin else ''}"
    )


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    return {ACTIVATION: _activation(_is_quick(config)), **{key: str(config.get(key)) for key in PREPROCESS_KEYS}}


def _few(tags: Sequence[str]) -> str:
    more = f" and {len(tags) - 3} more" if len(tags) > 3 else ""
    return ", ".join(tags[:3]) + more


def _preprocess(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in PREPROCESS_KEYS if config.get(key) is not None}


def _activation(is_quick: bool) -> str:
    return "QuickGELU" if is_quick else "GELU"


def _with(is_quick: bool) -> str:
    return "with" if is_quick else "without"


def _is_quick(config: Mapping[str, Any]) -> bool:
    return bool(config.get("quick_gelu"))


def _has_quick_gelu(architecture: str) -> bool:
    import open_clip

    return _is_quick(open_clip.get_model_config(architecture) or {})


def _twin(architecture: str) -> str | None:
    """Return the same architecture with the other activation; None where open_clip has none.

    Then its own configuration is right, and a tag that says nothing of it (of roberta-ViT-B-32) is silent.
    """
    import open_clip

    is_quick = _has_quick_gelu(architecture)
    other = architecture.removesuffix("-quickgelu") if is_quick else f"{architecture}-quickgelu"
    return other if other != architecture and open_clip.get_model_config(other) else None
