"""Captions and prompts as tokens, and as the text encoder's vectors. It stores nothing and knows no file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loupe.diffusion.cpu_shares import each_by_itself, n_at_once

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer


TEXTS_AT_ONCE_GPU = 32


def token_ids(text: str, *, tokenizer: CLIPTokenizer, length: int) -> torch.Tensor:
    """Return the text's tokens [length] int64: a shorter one padded, a longer one cut, as Stable Diffusion 1.x was
    trained.
    """
    return tokenizer(text, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids[0]


def embed_tokens(ids_BT: torch.Tensor, *, text_encoder: CLIPTextModel) -> torch.Tensor:
    """Return the last hidden states [B, T, D] float32 on the CPU of texts' tokens [B, T].

    On the CPU every text by itself, several at the same time: put together the matrix kernels differ, and the last bits
    would depend on the neighbours. On CUDA always as many together, for the number decides the last bits; on MPS one
    after the other, since it bears no threads.
    """
    import torch

    def hidden(ids: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return text_encoder(ids.to(text_encoder.device)).last_hidden_state.float().cpu()

    if text_encoder.device.type == "cuda":
        return torch.cat([hidden(part) for part in full_parts(ids_BT)])[: len(ids_BT)]
    at_once = n_at_once(n_threads=torch.get_num_threads()) if text_encoder.device.type == "cpu" else 1
    return torch.cat(list(each_by_itself(hidden, ids_BT.split(1), n_at_once=at_once)))


def full_parts(ids_BT: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return parts of TEXTS_AT_ONCE_GPU rows, the last one filled up with the last row."""
    import torch

    filling = ids_BT[-1:].expand(-len(ids_BT) % TEXTS_AT_ONCE_GPU, -1)
    return torch.cat([ids_BT, filling]).split(TEXTS_AT_ONCE_GPU)


def embed_all(texts: Sequence[str], *, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel) -> torch.Tensor:
    """Return embed_tokens of the texts' tokens; T is the encoder's context length (77 for CLIP)."""
    import torch

    length = text_encoder.config.max_position_embeddings
    ids_BT = torch.stack([token_ids(text, tokenizer=tokenizer, length=length) for text in texts])
    return embed_tokens(ids_BT, text_encoder=text_encoder)
