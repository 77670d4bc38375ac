"""Latents and token ids of the everyday pictures, made once and cached: the UNet never waits for the autoencoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from loupe.demo.catalogue import ItemSpec
from loupe.demo.kit.captions import everyday_caption
from loupe.demo.kit.denoiser import LatentSet
from loupe.demo.kit.optimise import half_precision
from loupe.demo.kit.settings import CAPTIONS_PER_IMAGE
from loupe.demo.kit.vae import to_tensor

BATCH = 64


@torch.no_grad()
def make_latents(vae: AutoencoderKL, images: np.ndarray, *, folder: Path) -> None:
    """Write `folder`/latents.safetensors: mean latents [N, 4, h, w] and 1 / their standard deviation."""
    parts = []
    for start in range(0, len(images), BATCH):
        pictures = to_tensor(images[start : start + BATCH]).to(vae.device)
        with half_precision(vae.device):
            parts.append(vae.encode(pictures).latent_dist.mean.float().cpu())
    latents = torch.cat(parts)
    scaling_factor = 1.0 / latents.std()
    print(
        "latents:",
        tuple(latents.shape),
        "mean",
        latents.mean((0, 2, 3)).tolist(),
        "std",
        latents.std((0, 2, 3)).tolist(),
        flush=True,
    )
    save_file({"latents": latents, "scaling_factor": scaling_factor.reshape(1)}, folder / "latents.safetensors")


def tokenize(items: Sequence[ItemSpec], tokenizer: CLIPTokenizer, *, seed: int) -> torch.Tensor:
    """int64 [N, K, 77]: K captions of each item, drawn at random."""
    captions = []
    for index, item in enumerate(items):
        rng = np.random.default_rng([seed, 22, index])
        captions += [everyday_caption(item, rng) for _ in range(CAPTIONS_PER_IMAGE)]
    ids = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return ids.view(len(items), CAPTIONS_PER_IMAGE, -1)


def load_latents(folder: Path, tokens: torch.Tensor, tokenizer: CLIPTokenizer) -> LatentSet:
    """The training set of the UNet, latents scaled."""
    stored = load_file(folder / "latents.safetensors")
    empty = tokenizer([""], padding="max_length", truncation=True, return_tensors="pt").input_ids[0]
    return LatentSet(stored["latents"] * stored["scaling_factor"], tokens, empty)


def scaling_factor(folder: Path) -> float:
    """The factor found by `make_latents`."""
    return float(load_file(folder / "latents.safetensors")["scaling_factor"])
