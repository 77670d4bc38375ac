"""Joint training of the base model's text encoder and UNet on cached latents of the everyday look.

Loss: mean squared error of v (Salimans & Ho 2022), all timesteps alike. One caption in ten is empty, for classifier-
free guidance.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch.nn import functional
from transformers import CLIPTextModel

from loupe.demo.kit.base import noise_scheduler
from loupe.demo.kit.muon import MixedOptimiser
from loupe.demo.kit.optimise import AveragedWeights, LossLog, half_precision, warm_cosine
from loupe.demo.kit.settings import KitSettings

PLAIN_LAYERS = ("conv_in", "conv_out", "embed", "time_emb")


@dataclass(frozen=True)
class LatentSet:
    """Latents float32 [N, 4, h, w] of unit variance; tokens int64 [N, K, 77], K captions each; empty int64 [77]."""

    latents: torch.Tensor
    tokens: torch.Tensor
    empty: torch.Tensor


def _batch(
    data: LatentSet, settings: KitSettings, step: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng([settings.seed, 12, step])
    count = settings.unet_batch
    rows = torch.from_numpy(rng.integers(0, len(data.latents), count))
    picks = torch.from_numpy(rng.integers(0, data.tokens.shape[1], count))
    tokens = data.tokens[rows, picks].clone()
    tokens[torch.from_numpy(rng.random(count) < settings.caption_dropout)] = data.empty
    timesteps = torch.from_numpy((rng.permutation(count) + rng.random(count)) * (1000 / count)).long()
    noise = torch.from_numpy(rng.standard_normal((count, *data.latents.shape[1:]), dtype=np.float32))
    return data.latents[rows], tokens, timesteps, noise


def train_denoiser(
    data: LatentSet,
    *,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    settings: KitSettings,
    device: torch.device,
    folder: Path,
) -> LossLog:
    """Train both in place; averaged weights go to `folder`/unet and /text_encoder every `snapshot_every` steps."""
    if device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())  # the fused kernel's backward pass is three times slower there
    pair = torch.nn.ModuleList([text_encoder, unet]).to(device).train()
    average = AveragedWeights(pair, decay=settings.ema_decay)
    optimiser = MixedOptimiser(
        pair, rates=settings.unet_learning_rates, plain=PLAIN_LAYERS, weight_decay=0.01, precision=torch.bfloat16
    )
    schedule = noise_scheduler()
    log = LossLog(folder / "unet.csv")
    for step in range(settings.unet_steps):
        latents, tokens, timesteps, noise = (value.to(device) for value in _batch(data, settings, step))
        noisy = schedule.add_noise(latents, noise, timesteps)
        target = schedule.get_velocity(latents, noise, timesteps)
        with half_precision(device):
            states = text_encoder(tokens).last_hidden_state
            made = unet(noisy, timesteps, states).sample
        loss = functional.mse_loss(made.float(), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pair.parameters(), 1.0)
        optimiser.step(warm_cosine(step, steps=settings.unet_steps, warm_up=100))
        average.update(pair, step)
        log.add(step + 1, {"v_mse": loss})
        if (step + 1) % settings.snapshot_every == 0 or step + 1 == settings.unet_steps:
            _snapshot(pair, average, folder)
    return log


def _snapshot(pair: torch.nn.ModuleList, average: AveragedWeights, folder: Path) -> None:
    current = [value.detach().clone() for value in pair.parameters()]
    average.copy_to(pair)
    pair[0].save_pretrained(folder / "text_encoder")
    pair[1].save_pretrained(folder / "unet")
    with torch.no_grad():
        for value, kept in zip(pair.parameters(), current, strict=True):
            value.copy_(kept)
