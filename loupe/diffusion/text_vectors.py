"""The vectors of prompts and captions as each checkpoint has them: its own text encoder's where that was trained too.

A checkpoint without an adapter of the text encoder, and the base model, share the base model's vectors. It draws
nothing and stores nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from loupe.diffusion.adapter import load_adapter, set_adapter_enabled
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.latent_files import Examples
from loupe.diffusion.model_loading import load_text_encoder, load_tokenizer
from loupe.diffusion.sample_plan import AdapterSource
from loupe.diffusion.sampling import embed_texts
from loupe.diffusion.text import embed_tokens

if TYPE_CHECKING:
    from transformers import CLIPTextModel


class TextEncoders:
    """The base model's text encoder, float32, that takes one checkpoint's adapter after another; loaded when needed."""

    def __init__(self, base_folder: Path, *, policy: DevicePolicy) -> None:
        self._base_folder = base_folder
        self._device = policy.device
        self._encoder: CLIPTextModel | None = None

    def of(self, adapter_folder: Path | None) -> CLIPTextModel:
        """Return the encoder with the adapter of a folder, or for None as the base model has it, until the next call.

        Raises PipelineError as load_adapter.
        """
        if self._encoder is None:
            self._encoder = load_text_encoder(self._base_folder, device=self._device, dtype=torch.float32)
        if adapter_folder is None:
            set_adapter_enabled(self._encoder, False)
        else:
            load_adapter(self._encoder, adapter_folder)
        return self._encoder


def vectors_by_step(
    source: AdapterSource, texts_by_step: Mapping[int, Iterable[str]], *, policy: DevicePolicy
) -> dict[int, dict[str, torch.Tensor]]:
    """Return step -> text -> [T, D] float32 on the CPU, each text once per text encoder."""
    tokenizer = load_tokenizer(source.base_folder)
    encoders = TextEncoders(source.base_folder, policy=policy)
    of_base: dict[str, torch.Tensor] = {}
    vectors = {}
    for step, texts in sorted(texts_by_step.items()):
        folder = source.text_adapter_folder(step)
        known = of_base if folder is None else {}
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            known.update(embed_texts(new, tokenizer=tokenizer, text_encoder=encoders.of(folder)))
        vectors[step] = known
    return vectors


def with_vectors_of(text_encoder: CLIPTextModel, examples: Examples) -> Examples:
    """Return the examples, which must have tokens, with the vectors that `text_encoder` gives their captions.

    Only captions that an image has are kept, so the empty one need not be in row 0 any more.
    """
    assert examples.token_ids is not None
    rows, caption_index = examples.caption_index.unique(return_inverse=True)
    token_ids = examples.token_ids[rows]
    embeddings = embed_tokens(token_ids, text_encoder=text_encoder)
    return replace(examples, caption_index=caption_index, embeddings=embeddings, token_ids=token_ids)
