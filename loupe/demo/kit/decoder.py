"""A second training of the autoencoder's decoder alone, on whole pictures, with more weight on edges.

The encoder stays as it is, so the latents that the UNet learns stay valid. Noise on the latents, of another strength
for each picture, makes the decoder forgive the UNet's errors. Where a picture is pure white or black the decoder may go
beyond it, which is clipped away when pixels are made: so a white background stays white under small errors.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from loupe.demo.kit.corpus import Corpus
from loupe.demo.kit.muon import MixedOptimiser
from loupe.demo.kit.optimise import AveragedWeights, LossLog, half_precision, warm_cosine
from loupe.demo.kit.settings import KitSettings
from loupe.demo.kit.vae import PLAIN_LAYERS, reconstruction_losses, to_tensor


def _batch(looks: tuple[Corpus, Corpus], settings: KitSettings, step: int) -> torch.Tensor:
    rng = np.random.default_rng([settings.seed, 15, step])
    pictures = []
    for _ in range(settings.decoder_batch):
        images = looks[int(rng.random() < settings.vae_catalogue_share)].images
        picture = images[rng.integers(len(images))]
        pictures.append(picture[:, ::-1] if rng.random() < 0.5 else picture)
    return to_tensor(np.stack(pictures))


def forgive_overshoot(made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """`made` [N, 3, H, W], but not beyond `real` (same shape, in [-1, 1]) where that is saturated."""
    made = torch.where(real >= 1, made.clamp(max=1), made)
    return torch.where(real <= -1, made.clamp(min=-1), made)


def train_decoder(
    vae: AutoencoderKL,
    everyday: Corpus,
    catalogue: Corpus,
    *,
    scaling_factor: float,
    settings: KitSettings,
    device: torch.device,
    folder: Path,
) -> LossLog:
    """Train decoder and post_quant_conv, saving the whole to `folder`/vae-refined every `snapshot_every` steps."""
    vae.requires_grad_(False)
    trained = torch.nn.ModuleList([vae.post_quant_conv, vae.decoder]).to(device).requires_grad_(True)
    vae.to(device)
    average = AveragedWeights(trained, decay=settings.ema_decay)
    optimiser = MixedOptimiser(trained, rates=settings.decoder_learning_rates, plain=PLAIN_LAYERS, weight_decay=1e-4)
    noise = torch.Generator(device).manual_seed(settings.seed + 6)
    log = LossLog(folder / "decoder.csv")
    for step in range(settings.decoder_steps):
        real = _batch((everyday, catalogue), settings, step).to(device)
        with torch.no_grad(), half_precision(device):
            latents = vae.encode(real).latent_dist.mean.float()
        strength = torch.rand((len(latents), 1, 1, 1), generator=noise, device=device) * settings.decoder_latent_noise
        latents += torch.randn(latents.shape, generator=noise, device=device) * strength / scaling_factor
        with half_precision(device):
            made = vae.decode(latents).sample
        losses = reconstruction_losses(forgive_overshoot(made.float(), real), real)
        total = losses["luma"] + settings.vae_chroma_weight * losses["chroma"]
        (total + settings.decoder_gradient_weight * losses["gradient"]).backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimiser.step(warm_cosine(step, steps=settings.decoder_steps, warm_up=50))
        average.update(trained, step)
        log.add(step + 1, losses)
        if (step + 1) % settings.snapshot_every == 0 or step + 1 == settings.decoder_steps:
            _snapshot(vae, trained, average, folder)
    return log


def _snapshot(vae: AutoencoderKL, trained: torch.nn.ModuleList, average: AveragedWeights, folder: Path) -> None:
    current = [value.detach().clone() for value in trained.parameters()]
    average.copy_to(trained)
    vae.save_pretrained(folder / "vae-refined")
    with torch.no_grad():
        for value, kept in zip(trained.parameters(), current, strict=True):
            value.copy_(kept)
