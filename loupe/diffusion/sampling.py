"""Drawing pictures from a base model with or without an adapter: seeds, latents, denoising, decoding.

It knows neither files nor checkpoints: the caller hands in a loaded UNet with the wanted adapter switched on. Every
picture's randomness is its own (one CPU generator per picture, and a sampler that draws no noise of its own).

Shapes: B pictures, C latent channels, H x W latents (an eighth of the picture), T tokens, D text features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.text import embed_all
from loupe.diffusion.unet_forward import UNetForward
from loupe.diffusion.validity import InvalidReason, are_finite, pixel_problem

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    from loupe.params import GenerateParams

Purpose = Literal["generate", "confirm"]
SAMPLER = "DPM-Solver++ multistep, order 2"
PICTURES_AT_ONCE_CPU = 8


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How pictures are drawn; the same for the base model and every checkpoint."""

    width_px: int
    height_px: int
    guidance_scale: float
    """Classifier-free guidance; 1 switches it off."""
    num_inference_steps: int
    negative_prompt: str

    @classmethod
    def square(cls, options: GenerateParams, *, side_px: int) -> SamplingSettings:
        """Return the settings that params.yaml asks for, for pictures of the photos' size."""
        return cls(
            width_px=side_px,
            height_px=side_px,
            guidance_scale=options.guidance_scale,
            num_inference_steps=options.num_inference_steps,
            negative_prompt=options.negative_prompt,
        )


@dataclass(frozen=True, slots=True)
class DrawingModel:
    """The parts that turn text embeddings and noise into pictures."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    """In float32 on every device: bfloat16 steps by half a level near white, where the background is judged."""
    noise_scheduler: DDPMScheduler
    policy: DevicePolicy
    forward: UNetForward | None = None
    """The UNet's forward pass where it was recorded for many pictures; without it `unet` is called as it is."""


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """One picture to draw."""

    prompt: str
    seed: int


@dataclass(frozen=True, slots=True)
class Picture:
    """One drawn picture: `pixels` is uint8 [H, W, 3] in [0, 255], or None when its values are not finite."""

    pixels: NDArray[np.uint8] | None
    invalid_reason: InvalidReason | None


def sample_seed(root_seed: int, *, purpose: Purpose, prompt_id: str, seed_index: int) -> int:
    """Return the seed of one picture, in [0, 2**63): the same for every checkpoint, other for every purpose.

    The lowest bit is the purpose, so no seed of `confirm` was ever used by `generate`.
    """
    text = f"{root_seed}/{purpose}/{prompt_id}/{seed_index}"
    drawn = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")
    return (drawn >> 2 << 1) | (purpose == "confirm")


def pictures_at_once(policy: DevicePolicy, batch_size: int) -> int:
    """Return how many pictures are to go through the UNet together: `batch_size`, but always 8 on the CPU.

    Kernels choose their blocking, and with it the last bits of a result, by the number of rows; so the last batch is
    filled up, and the number is part of a picture's key (sample_plan.py). On the CPU, with a constant power of two, a
    picture comes out bit-equal wherever it stands in the list and whatever its neighbours are. A GPU takes fewer where
    its memory does not hold as many (picture_rows.py).
    """
    return PICTURES_AT_ONCE_CPU if policy.device == "cpu" else batch_size


def embed_texts(
    texts: Iterable[str], *, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel
) -> dict[str, torch.Tensor]:
    """Return text -> [T, D] float32 on the CPU (see `loupe.diffusion.text.embed_all`), each distinct text once."""
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, embed_all(distinct, tokenizer=tokenizer, text_encoder=text_encoder), strict=True))


def make_sampler(noise_scheduler: DDPMScheduler) -> DPMSolverMultistepScheduler:
    """Return DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095), second order multistep, deterministic ODE variant.

    Betas, prediction type, zero-terminal-SNR rescaling and timestep spacing are the base model's; dynamic thresholding
    is off because it is meant for pixels, not latents.
    """
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler.from_config(
        noise_scheduler.config,
        algorithm_type="dpmsolver++",
        solver_order=2,
        thresholding=False,
        use_karras_sigmas=False,
        final_sigmas_type="zero",
    )


def initial_latents(seed: int, shape_CHW: tuple[int, int, int]) -> torch.Tensor:
    """Return standard normal noise [C, H, W], float32 on the CPU, from a generator of its own."""
    return torch.randn(shape_CHW, generator=torch.Generator("cpu").manual_seed(seed))


@torch.inference_mode()
def denoise(
    model: DrawingModel,
    *,
    latents_BCHW: torch.Tensor,
    prompts_BTD: torch.Tensor,
    negative_BTD: torch.Tensor,
    guidance_scale: float,
    num_inference_steps: int,
) -> torch.Tensor:
    """Return denoised latents [B, C, H, W], float32, still scaled; the sampler's arithmetic is float32 throughout.

    Classifier-free guidance as in Ho & Salimans 2022 (arXiv:2207.12598): negative + scale * (prompt - negative).
    """
    guided = guidance_scale > 1
    forward = model.forward or UNetForward(model.unet, policy=model.policy)
    context = torch.cat([negative_BTD, prompts_BTD]) if guided else prompts_BTD
    sampler = make_sampler(model.noise_scheduler)
    sampler.set_timesteps(num_inference_steps, device=latents_BCHW.device)
    latents = latents_BCHW * sampler.init_noise_sigma
    for timestep in sampler.timesteps:
        scaled = sampler.scale_model_input(torch.cat([latents, latents]) if guided else latents, timestep)
        predicted = forward(scaled, timestep, context)
        if guided:
            negative, prompt = predicted.chunk(2)
            predicted = negative + guidance_scale * (prompt - negative)
        latents = sampler.step(predicted, timestep, latents).prev_sample
    return latents


@torch.inference_mode()
def decode_latents(vae: AutoencoderKL, latents_CHW: torch.Tensor) -> torch.Tensor:
    """Return the image [3, 8 H, 8 W] that the VAE decodes from scaled latents: float32 on its device, about [-1, 1]."""
    unscaled = latents_CHW[None] / vae.config.scaling_factor
    return vae.decode(unscaled.to(vae.dtype)).sample[0].float()


def to_pixels(image_CHW: torch.Tensor) -> torch.Tensor:
    """Return [-1, 1] as uint8 [H, W, 3]: clamped, rounded to nearest (truncating would darken by half a level)."""
    levels = ((image_CHW + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous()


def sample_pictures(
    model: DrawingModel,
    requests: Sequence[PictureRequest],
    *,
    embeddings: Mapping[str, torch.Tensor],
    settings: SamplingSettings,
    batch_size: int,
) -> Iterator[Picture]:
    """Yield one picture per request, in order.

    `embeddings` holds every prompt and the negative prompt (see `embed_texts`). On the CPU a picture depends on its
    own request alone, bit for bit (see `pictures_at_once`); decoding takes one picture at a time for the same reason.
    """
    size = pictures_at_once(model.policy, batch_size)
    batches = (
        DrawingBatch(requests[start : start + size], embeddings, n_rows=size) for start in range(0, len(requests), size)
    )
    for pictures in sample_batches(model, batches, settings=settings):
        yield from pictures


def sample_batches(
    model: DrawingModel, batches: Iterable[DrawingBatch], *, settings: SamplingSettings
) -> Iterator[list[Picture]]:
    """Yield the pictures of each batch in turn.

    On a GPU the next batch is taken from `batches`, and begun, before the pictures of the last one are converted and
    handed out, so that the device does not wait for the host. What taking a batch does to the model (another adapter)
    comes after the work that was begun before.
    """
    begun: _Begun | None = None
    for batch in batches:
        begun, before = _begin(model, batch, settings), begun
        if before is not None:
            yield before.pictures(settings)
        if begun.arrived is None:
            yield begun.pictures(settings)
            begun = None
    if begun is not None:
        yield begun.pictures(settings)


@dataclass(frozen=True, slots=True)
class DrawingBatch:
    """Pictures that go through the UNet together."""

    requests: Sequence[PictureRequest]
    embeddings: Mapping[str, torch.Tensor]
    """Of every prompt and the negative one: [T, D] float32 on the CPU."""
    n_rows: int
    """Pictures to fill the batch up to, with the last request again."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """Pictures on their way to the host: `pixels` uint8 [B, H, W, 3], `finite` bool [B]."""

    pixels: torch.Tensor
    finite: torch.Tensor
    arrived: torch.cuda.Event | None

    def pictures(self, settings: SamplingSettings) -> list[Picture]:
        if self.arrived is not None:
            self.arrived.synchronize()
        judged = zip(self.pixels.numpy(), self.finite.tolist(), strict=True)
        return [_picture(pixels, is_finite=finite, settings=settings) for pixels, finite in judged]


def _begin(model: DrawingModel, batch: DrawingBatch, settings: SamplingSettings) -> _Begun:
    requests = list(batch.requests)
    filling = [requests[-1]] * (batch.n_rows - len(requests))
    latents = _denoise_batch(model, requests + filling, embeddings=batch.embeddings, settings=settings)
    latents = latents[: len(requests)]
    images = [decode_latents(model.vae, latents_CHW) for latents_CHW in latents]
    finite = torch.stack([are_finite(*tensors) for tensors in zip(latents, images, strict=True)])
    pixels = torch.stack([to_pixels(image) for image in images])
    if model.policy.device != "cuda":
        return _Begun(pixels.cpu(), finite.cpu(), None)
    landed = [
        torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True) for t in (pixels, finite)
    ]
    arrived = torch.cuda.Event()
    arrived.record()
    return _Begun(*landed, arrived)


def _denoise_batch(
    model: DrawingModel,
    batch: Sequence[PictureRequest],
    *,
    embeddings: Mapping[str, torch.Tensor],
    settings: SamplingSettings,
) -> torch.Tensor:
    downsampling = 2 ** (len(model.vae.config.block_out_channels) - 1)
    shape = (
        model.unet.config.in_channels,
        settings.height_px // downsampling,
        settings.width_px // downsampling,
    )
    noise = torch.stack([initial_latents(request.seed, shape) for request in batch])
    prompts = torch.stack([embeddings[request.prompt] for request in batch])
    prompts = prompts.to(model.policy.device, model.policy.dtype)
    negative = embeddings[settings.negative_prompt].to(prompts).expand_as(prompts)
    return denoise(
        model,
        latents_BCHW=noise.to(model.policy.device),
        prompts_BTD=prompts,
        negative_BTD=negative,
        guidance_scale=settings.guidance_scale,
        num_inference_steps=settings.num_inference_steps,
    )


def _picture(pixels_HWC: NDArray[np.uint8], *, is_finite: bool, settings: SamplingSettings) -> Picture:
    if not is_finite:
        return Picture(pixels=None, invalid_reason="not finite")
    problem = pixel_problem(pixels_HWC, width_px=settings.width_px, height_px=settings.height_px)
    return Picture(pixels=pixels_HWC, invalid_reason=problem)
