"""The autoencoder of the demo base model: 8x downsampling, 4 latent channels, trained on both looks.

Loss: L1 in luma and chroma (chroma weighs more: colours of objects are otherwise learnt last), L1 of image gradients,
a small KL term.
Crops first (many cheap updates), whole pictures last (group norm sees the statistics of whole pictures at inference).
No adversary.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from loupe.demo.kit.corpus import Corpus
from loupe.demo.kit.muon import MixedOptimiser
from loupe.demo.kit.optimise import AveragedWeights, LossLog, half_precision, warm_cosine
from loupe.demo.kit.settings import LATENT_CHANNELS, SIZE_PX, KitSettings

INITIAL_LOG_VARIANCE = -6.0
"""The posterior starts narrow: with unit variance the first thousand steps only learn to shout over the noise."""
PLAIN_LAYERS = ("conv_in", "conv_out", "quant")


def build_vae(settings: KitSettings) -> AutoencoderKL:
    """An untrained autoencoder; initial weights come from the settings' seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(settings.vae_blocks),
            up_block_types=("UpDecoderBlock2D",) * len(settings.vae_blocks),
            block_out_channels=settings.vae_blocks,
            layers_per_block=1,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=settings.vae_norm_groups,
            sample_size=SIZE_PX,
            mid_block_add_attention=False,
        )
    with torch.no_grad():
        vae.quant_conv.bias[LATENT_CHANNELS:] = INITIAL_LOG_VARIANCE
    return vae


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """uint8 [N, H, W, 3] to float32 [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def _luma_chroma(rgb: torch.Tensor) -> torch.Tensor:
    """[N, 3, H, W]: ITU-R BT.601 luma, blue minus luma, red minus luma."""
    red, green, blue = rgb.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack([luma, blue - luma, red - luma], dim=1)


def reconstruction_losses(made: torch.Tensor, real: torch.Tensor) -> dict[str, torch.Tensor]:
    """L1 of luma, chroma and image gradients, each a scalar; pictures [N, 3, H, W] in [-1, 1]."""
    difference = made - real
    channels = _luma_chroma(difference).abs()
    slopes = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    return {"luma": channels[:, 0].mean(), "chroma": channels[:, 1:].mean(), "gradient": slopes}


def _batch(looks: tuple[Corpus, Corpus], settings: KitSettings, step: int) -> torch.Tensor:
    rng = np.random.default_rng([settings.seed, 11, step])
    whole = step >= settings.vae_crop_share * settings.vae_steps
    count = settings.vae_full_batch if whole else settings.vae_crop_batch
    side = SIZE_PX if whole else settings.vae_crop_px
    pictures = np.empty((count, side, side, 3), dtype=np.uint8)
    for place in range(count):
        images = looks[int(rng.random() < settings.vae_catalogue_share)].images
        y, x = rng.integers(0, SIZE_PX - side + 1, 2)
        crop = images[rng.integers(len(images)), y : y + side, x : x + side]
        pictures[place] = crop[:, ::-1] if rng.random() < 0.5 else crop
    return to_tensor(pictures)


def train_vae(
    everyday: Corpus, catalogue: Corpus, *, settings: KitSettings, device: torch.device, folder: Path
) -> LossLog:
    """Train, saving averaged weights to `folder`/vae every `snapshot_every` steps."""
    vae = build_vae(settings).to(device)
    average = AveragedWeights(vae, decay=settings.ema_decay)
    shadow = build_vae(settings)
    optimiser = MixedOptimiser(vae, rates=settings.vae_learning_rates, plain=PLAIN_LAYERS, weight_decay=1e-4)
    noise = torch.Generator(device).manual_seed(settings.seed + 1)
    log = LossLog(folder / "vae.csv")
    for step in range(settings.vae_stop):
        real = _batch((everyday, catalogue), settings, step).to(device)
        with half_precision(device):
            posterior = vae.encode(real).latent_dist
            made = vae.decode(posterior.sample(generator=noise)).sample
        losses = reconstruction_losses(made.float(), real)
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        losses["kl"] = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        total = losses["luma"] + settings.vae_chroma_weight * losses["chroma"]
        total = total + settings.vae_gradient_weight * losses["gradient"] + settings.vae_kl_weight * losses["kl"]
        total.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step(warm_cosine(step, steps=settings.vae_steps, warm_up=50))
        average.update(vae, step)
        log.add(step + 1, losses)
        if (step + 1) % settings.snapshot_every == 0 or step + 1 == settings.vae_stop:
            average.copy_to(shadow)
            shadow.save_pretrained(folder / "vae")
    return log


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3] through the mean latent and back."""
    made = vae.decode(vae.encode(to_tensor(pictures).to(vae.device)).latent_dist.mean).sample
    return made.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
