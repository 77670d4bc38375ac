"""A trial of the present settings on this machine: a few training steps and one picture, timed, judged, thrown away.

It goes through the code that trains and draws, and writes nothing. What the numbers mean for a whole run, the caller
works out.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from loupe.diffusion.adapter import AdapterConfig
from loupe.diffusion.base_model import context_length
from loupe.diffusion.base_model_files import PIXELS_PER_LATENT
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.device_memory import FREE_MEMORY, Portions
from loupe.diffusion.generation import load_drawing_model
from loupe.diffusion.latent_files import EMPTY_ROW, Examples, Posteriors
from loupe.diffusion.latents import IMAGES_AT_ONCE_GPU, encode_pixels
from loupe.diffusion.model_loading import load_text_encoder, load_tokenizer, load_vae
from loupe.diffusion.noise import seeded_generator
from loupe.diffusion.sampling import (
    PictureRequest,
    SamplingSettings,
    decode_latents,
    embed_texts,
    pictures_at_once,
    sample_pictures,
)
from loupe.diffusion.train_settings import TrainSettings
from loupe.diffusion.trainer_start import build_trainer
from loupe.diffusion.validity import InvalidReason
from loupe.records import BaseModelInfo

MAX_TRAINING_STEPS = 3
SAMPLER_STEPS = 4
LONG_S = 5.0
"""What takes longer is not repeated: kernels that are chosen and compiled at the first call no longer count then."""


@dataclass(frozen=True, slots=True)
class TrainingTrial:
    """Optimizer steps that were made."""

    n_steps: int
    step_s: float
    """Of the last one."""
    loss: float
    """Of the first one."""
    compile_s: float
    """By how much the first took longer than the last, where the UNet is compiled; else 0."""


@dataclass(frozen=True, slots=True)
class DrawingTrial:
    """A batch of pictures that was denoised with few sampler steps, of which one was decoded."""

    sampler_step_s: float
    """Per picture: one sampler step, guidance included."""
    decode_s: float
    """Per picture."""
    invalid_reason: InvalidReason | None


def made_up_examples(base: Path, info: BaseModelInfo, *, side_px: int, count: int) -> Examples:
    """Return `count` examples of noise with the shapes of encoded photos, where there are none yet."""
    tokens = context_length(base)
    width = json.loads((base / "unet" / "config.json").read_bytes())["cross_attention_dim"]
    side = side_px // PIXELS_PER_LATENT
    generator = seeded_generator("made-up examples")
    mean = torch.randn(count, info.latent_channels, side, side, generator=generator) / info.scaling_factor
    std = torch.zeros_like(mean)
    return Examples(
        image_ids=tuple(f"made-up-{index}" for index in range(count)),
        mean=mean,
        std=std,
        caption_index=torch.full((count,), EMPTY_ROW + 1),
        embeddings=torch.randn(EMPTY_ROW + 2, tokens, width, generator=generator),
        token_ids=torch.zeros(EMPTY_ROW + 2, tokens, dtype=torch.int64),
        mirrored=Posteriors(mean.flip(-1), std),
    )


def try_training(
    base: Path,
    info: BaseModelInfo,
    examples: Examples,
    *,
    settings: TrainSettings,
    adapter: AdapterConfig,
    policy: DevicePolicy,
    gradient_checkpointing: bool,
) -> TrainingTrial:
    """Make one real optimizer step, and up to two more when it was quick; after one that compiles always another.

    Raises PipelineError when a loss or gradient is not finite.
    """
    trainer = build_trainer(
        base, info, examples, settings=settings, adapter=adapter, policy=policy,
        gradient_checkpointing=gradient_checkpointing,
    )  # fmt: skip
    losses, times_s = [], []
    for step in range(1, min(MAX_TRAINING_STEPS, settings.max_steps) + 1):
        started = _now(policy)
        # One step alone: in a longer run a GPU would already be at the next one, and its row would cost nothing.
        losses += [row.loss for row in trainer.run(step)]
        times_s.append(_now(policy) - started)
        if times_s[-1] > LONG_S and (step > 1 or not settings.compile):
            break
    compile_s = max(times_s[0] - times_s[-1], 0.0) if settings.compile else 0.0
    return TrainingTrial(len(losses), times_s[-1], losses[0], compile_s)


def try_encoding(base: Path, *, side_px: int, policy: DevicePolicy) -> float:
    """Return the seconds that the VAE takes to encode one photo of `side_px` squared, of as many as go together."""
    vae = load_vae(base, device=policy.device, dtype=torch.float32)
    count = IMAGES_AT_ONCE_GPU if policy.device == "cuda" else 1
    pixels = torch.zeros(count, 3, side_px, side_px)
    portions = Portions(count, policy.device, f"Encoding does not fit. {FREE_MEMORY}")
    for _ in range(2):
        started = _now(policy)
        portions.results(count, lambda a, b: encode_pixels(vae, pixels[a:b]))
        whole_s = _now(policy) - started
        if whole_s > LONG_S:
            break
    return whole_s / count


def try_drawing(
    base: Path, *, prompt: str, settings: SamplingSettings, policy: DevicePolicy, batch_size: int
) -> DrawingTrial:
    """Denoise as many pictures as go through the UNet together, with few sampler steps, and decode and judge one."""
    text_encoder = load_text_encoder(base, device=policy.device, dtype=torch.float32)
    texts = [settings.negative_prompt, prompt]
    embeddings = embed_texts(texts, tokenizer=load_tokenizer(base), text_encoder=text_encoder)
    model = load_drawing_model(base, policy=policy)
    quick = replace(settings, num_inference_steps=min(SAMPLER_STEPS, settings.num_inference_steps))
    together = pictures_at_once(policy, batch_size)
    requests = [PictureRequest(prompt, seed) for seed in range(together)]
    for _ in range(2):
        started = _now(policy)
        picture = next(sample_pictures(model, requests, embeddings=embeddings, settings=quick, batch_size=batch_size))
        whole_s = _now(policy) - started
        if whole_s > LONG_S:
            break
    channels, downsampling = model.unet.config.in_channels, PIXELS_PER_LATENT
    latents = torch.zeros(channels, settings.height_px // downsampling, settings.width_px // downsampling)
    started = _now(policy)
    decode_latents(model.vae, latents.to(policy.device))
    decode_s = _now(policy) - started
    denoise_s = max(whole_s - decode_s, 0.0)
    return DrawingTrial(denoise_s / (quick.num_inference_steps * together), decode_s, picture.invalid_reason)


def _now(policy: DevicePolicy) -> float:
    """Return the time in seconds once the device has done what was asked of it."""
    if policy.device == "cuda":
        torch.cuda.synchronize()
    elif policy.device == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
