"""Captions and prompts as the text encoder's vectors. It stores nothing and knows no file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer


def embed_text(text: str, *, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel) -> torch.Tensor:
    """Return the last hidden state [T, D] float32 on the CPU; T is the encoder's context length (77 for CLIP).

    Shorter texts are padded, longer ones cut, as Stable Diffusion 1.x was trained. One text at a time: with several the
    matrix kernels differ, and the last bits would depend on the neighbours.
    """
    import torch

    length = text_encoder.config.max_position_embeddings
    tokens = tokenizer(text, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    with torch.inference_mode():
        hidden = text_encoder(tokens.input_ids.to(text_encoder.device)).last_hidden_state
    return hidden[0].float().cpu().clone()
