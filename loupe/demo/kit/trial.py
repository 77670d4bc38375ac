"""A short LoRA training and sampling on the demo base, to measure whether the kit does what it is for.

Not the pipeline's trainer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig
from torch.nn import functional

from loupe.demo.kit.optimise import warm_cosine
from loupe.demo.kit.settings import SIZE_PX
from loupe.demo.kit.vae import to_tensor

TARGET_MODULES = ["to_q", "to_k", "to_v", "to_out.0"]
BATCH = 16


@dataclass(frozen=True)
class LoraTrial:
    """Settings of the trial; `learning_rate` is the peak of a warm-up and cosine decay."""

    rank: int = 8
    alpha: int = 16
    steps: int = 300
    learning_rate: float = 1.5e-3
    seed: int = 7


@torch.no_grad()
def embed(pipeline: StableDiffusionPipeline, prompts: Sequence[str]) -> torch.Tensor:
    """Text states float32 [N, 77, D]."""
    ids = pipeline.tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt").input_ids
    return pipeline.text_encoder(ids.to(pipeline.device)).last_hidden_state


@torch.no_grad()
def sample(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int = 16,
    guidance_scale: float = 3.0,
) -> np.ndarray:
    """One picture per prompt, uint8 [N, H, W, 3]; noise of picture i comes from seeds[i] alone."""
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pictures = []
    for start in range(0, len(prompts), BATCH):
        part = slice(start, start + BATCH)
        made = pipeline(
            list(prompts[part]),
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
            height=SIZE_PX,
            width=SIZE_PX,
            output_type="np",
        ).images
        pictures.append(np.rint(made * 255).astype(np.uint8))
    return np.concatenate(pictures)


def train_lora(
    pipeline: StableDiffusionPipeline, images: np.ndarray, captions: Sequence[str], *, trial: LoraTrial
) -> list[float]:
    """Add a LoRA to the pipeline's UNet, train it on the pictures, and return the loss of every step."""
    with torch.no_grad():
        latents = torch.cat(
            [
                pipeline.vae.encode(to_tensor(images[i : i + 32]).to(pipeline.device)).latent_dist.mean
                for i in range(0, len(images), 32)
            ]
        )
    latents = latents * pipeline.vae.config.scaling_factor
    states = torch.cat([embed(pipeline, captions[i : i + 64]) for i in range(0, len(captions), 64)])
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    unet = pipeline.unet.requires_grad_(False)
    if unet.device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())  # the fused kernel's backward pass is three times slower there
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed)
        unet.add_adapter(LoraConfig(r=trial.rank, lora_alpha=trial.alpha, target_modules=TARGET_MODULES))
    weights = [weight for weight in unet.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=trial.learning_rate)
    losses = []
    for step in range(trial.steps):
        rng = np.random.default_rng([trial.seed, step])
        rows = torch.from_numpy(rng.integers(0, len(images), BATCH))
        timesteps = torch.from_numpy(rng.integers(0, 1000, BATCH))
        noise = torch.from_numpy(rng.standard_normal((BATCH, *latents.shape[1:]), dtype=np.float32))
        noisy = schedule.add_noise(latents[rows], noise, timesteps)
        loss = functional.mse_loss(
            unet(noisy, timesteps, states[rows]).sample, schedule.get_velocity(latents[rows], noise, timesteps)
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = trial.learning_rate * warm_cosine(step, steps=trial.steps, warm_up=20)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    unet.eval()
    return losses
