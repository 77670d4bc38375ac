"""Builds a base model of toy size with random weights: a Stable-Diffusion-shaped diffusers folder, in a second.

It is for tests of everything that loads, trains or samples. Its pictures are noise, so it proves no quality.
"""

import json
from pathlib import Path

TINY_SIDE_PX = 64
TINY_WORDS = ("a", "photo", "of", "red", "black", "blue", "white", "green", "shoes", "casual", "product", "background")
_START, _END = "<|startoftext|>", "<|endoftext|>"


def build_tiny_base_model(
    folder: Path, *, seed: int = 0, prediction_type: str = "epsilon", half_precision: bool = False
) -> Path:
    """Write the whole base model to `folder` and return it: 64 px pictures, 4 x 8 x 8 latents, 77 tokens."""
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    vocabulary, merges = _byte_pairs(TINY_WORDS)
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                projection_dim=16,
                bos_token_id=vocabulary[_START],
                eos_token_id=vocabulary[_END],
                pad_token_id=vocabulary[_END],
            )
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=TINY_SIDE_PX,
        )
        unet = UNet2DConditionModel(
            sample_size=TINY_SIDE_PX // 8,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=16,
            attention_head_dim=2,
        )
    noise_scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        clip_sample=False,
    )
    if half_precision:
        text_encoder, vae, unet = text_encoder.half(), vae.half(), unet.half()
    for part, model in {
        "text_encoder": text_encoder,
        "vae": vae,
        "unet": unet,
        "tokenizer": tokenizer,
        "scheduler": noise_scheduler,
    }.items():
        model.save_pretrained(folder / part)
    (folder / "model_index.json").write_text(json.dumps(_MODEL_INDEX, indent=1))
    return folder


_MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDPMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def _byte_pairs(words: tuple[str, ...]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return a vocabulary and merges that make every word of `words` one token and spell all others."""
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    pieces = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters)])
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        symbols = [*word[:-1], f"{word[-1]}</w>"]
        while len(symbols) > 1:
            merges[symbols[0], symbols[1]] = None
            symbols = [symbols[0] + symbols[1], *symbols[2:]]
            pieces[symbols[0]] = None
    vocabulary = {piece: index for index, piece in enumerate([*pieces, _START, _END])}
    return vocabulary, list(merges)
