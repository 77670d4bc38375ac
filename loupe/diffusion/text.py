"""Captions and prompts as tokens, and as the text encoder's vectors. It stores nothing and knows no file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer


def token_ids(text: str, *, tokenizer: CLIPTokenizer, length: int) -> torch.Tensor:
    """Return the text's tokens [length] int64: a shorter one padded, a longer one cut, as Stable Diffusion 1.x was
    trained.
    """
    return tokenizer(text, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids[0]


def embed_tokens(ids_T: torch.Tensor, *, text_encoder: CLIPTextModel) -> torch.Tensor:
    """Return the last hidden state [T, D] float32 on the CPU of one text's tokens [T].

    One text at a time: with several the matrix kernels differ, and the last bits would depend on the neighbours.
    """
    import torch

    with torch.inference_mode():
        hidden = text_encoder(ids_T[None].to(text_encoder.device)).last_hidden_state
    return hidden[0].float().cpu().clone()


def embed_text(text: str, *, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel) -> torch.Tensor:
    """Return embed_tokens of the text's tokens; T is the encoder's context length (77 for CLIP)."""
    length = text_encoder.config.max_position_embeddings
    return embed_tokens(token_ids(text, tokenizer=tokenizer, length=length), text_encoder=text_encoder)
