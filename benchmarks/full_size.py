"""Builds a Stable Diffusion 1.5 of full size with random weights: a diffusers folder to measure speed and memory with.

Sizes and configuration are those of the published model; the weights and the tokenizer are our own. Its pictures are
noise, so it proves no quality. Nothing of it belongs into git.

    python -m benchmarks.full_size                  # writes .work/full-size-sd15, about 2.1 GB
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTokenizer

DEFAULT_FOLDER = Path(".work/full-size-sd15")
N_PARAMETERS = {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
VOCABULARY_SIZE = 49_408
CONTEXT_LENGTH = 77
SEED = 0
_START, _END = "<|startoftext|>", "<|endoftext|>"

UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
VAE = {
    "sample_size": 512,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "scaling_factor": 0.18215,
}
TEXT_ENCODER = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": CONTEXT_LENGTH,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
    "bos_token_id": VOCABULARY_SIZE - 2,
    "eos_token_id": VOCABULARY_SIZE - 1,
    "pad_token_id": VOCABULARY_SIZE - 1,
}
NOISE_SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "skip_prk_steps": True,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}
MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def make_unet() -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**UNET)


def make_vae() -> torch.nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL(**VAE)


def make_text_encoder() -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER))


PARTS: dict[str, Callable[[], Any]] = {"text_encoder": make_text_encoder, "vae": make_vae, "unet": make_unet}


def build(folder: Path) -> Path:
    """Write the whole base model to `folder`, half precision, and return it; the parts are made one after another."""
    import torch

    for part, make in PARTS.items():
        with torch.device("meta"):
            model = make()
        count = sum(p.numel() for p in model.parameters())
        if count != N_PARAMETERS[part]:
            raise SystemExit(f"{part} has {count:,} parameters; Stable Diffusion 1.5 has {N_PARAMETERS[part]:,}")
        fill(model.to(torch.float16).to_empty(device="cpu"), seed=SEED)
        model.save_pretrained(folder / part)
        del model
        print(f"{part}: {count:,} parameters", flush=True)
    make_tokenizer().save_pretrained(folder / "tokenizer")
    for name, content in (("scheduler/scheduler_config", NOISE_SCHEDULER), ("model_index", MODEL_INDEX)):
        file = folder / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content, indent=1))
    return folder


def fill(model: torch.nn.Module, *, seed: int) -> None:
    """Fill the weights in place so that values keep their scale through all layers and stay finite in half precision.

    A matrix or convolution keeps the variance of its input; a norm starts as the identity; biases are 0. The last
    convolution of a VAE's decoder is left as strong, so that pictures have contrast.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            norm = isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm)
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.ndim == 1:
                    parameter.fill_(1.0 if norm and name == "weight" else 0.0)
                else:
                    scale = 0.02 if isinstance(module, torch.nn.Embedding) else parameter[0].numel() ** -0.5
                    drawn = torch.empty(parameter.shape, dtype=torch.float32).normal_(generator=generator)
                    parameter.copy_(drawn.mul_(scale))


def make_tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer with as many tokens as SD 1.5's: the bytes, merges of letters, start and end of text."""
    from transformers import CLIPTokenizer

    from loupe.demo.kit.bpe import END_OF_WORD, vocabulary

    merges = _letter_merges(VOCABULARY_SIZE - len(vocabulary([])), end_of_word=END_OF_WORD)
    return CLIPTokenizer(
        vocab=vocabulary(merges), merges=merges, unk_token=_END, bos_token=_START, eos_token=_END, pad_token=_END,
        model_max_length=CONTEXT_LENGTH,
    )  # fmt: skip


def _letter_merges(count: int, *, end_of_word: str) -> list[tuple[str, str]]:
    """Return merges that spell letter pairs, then threes, then fours, in the order of the alphabet."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    merges: list[tuple[str, str]] = []
    starts = letters
    while True:
        longer = []
        for start in starts:
            for letter in letters:
                for last in (letter, letter + end_of_word):
                    if len(merges) == count:
                        return merges
                    merges.append((start, last))
                longer.append(start + letter)
        starts = longer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=DEFAULT_FOLDER)
    print(build(parser.parse_args().folder))
