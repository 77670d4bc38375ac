"""Every number that decides the demo kit's weights, in one frozen record. Does no work."""

from dataclasses import asdict, dataclass
from typing import Any

SIZE_PX = 128
LATENT_CHANNELS = 4
CONTEXT_LENGTH = 77
MERGE_CAPTIONS = 3_000
CAPTIONS_PER_IMAGE = 4


@dataclass(frozen=True)
class KitSettings:
    """Sizes, steps and learning rates; steps are optimiser updates."""

    seed: int = 20260101
    everyday_images: int = 16_000
    catalogue_images: int = 6_000
    held_out_images: int = 960
    merges: int = 640

    vae_blocks: tuple[int, ...] = (24, 48, 64, 96)
    vae_norm_groups: int = 2
    vae_steps: int = 5_600
    vae_stop: int = 4_500
    vae_crop_px: int = 64
    vae_crop_batch: int = 8
    vae_full_batch: int = 3
    vae_crop_share: float = 0.7
    vae_learning_rates: tuple[float, float] = (0.04, 1.2e-3)
    vae_kl_weight: float = 1e-4
    vae_chroma_weight: float = 4.0
    vae_gradient_weight: float = 1.0
    vae_catalogue_share: float = 0.3

    decoder_steps: int = 700
    decoder_batch: int = 4
    decoder_learning_rates: tuple[float, float] = (0.02, 6e-4)
    decoder_gradient_weight: float = 2.0
    decoder_latent_noise: float = 0.25

    text_hidden: int = 192
    text_layers: int = 3
    text_heads: int = 4
    unet_blocks: tuple[int, ...] = (64, 128, 192)
    unet_steps: int = 5_000
    unet_batch: int = 32
    unet_learning_rates: tuple[float, float] = (0.02, 6e-4)
    caption_dropout: float = 0.1
    ema_decay: float = 0.998

    clip_steps: int = 450
    clip_batch: int = 96
    clip_learning_rate: float = 1e-3
    classifier_steps: int = 700
    classifier_batch: int = 64
    classifier_learning_rate: float = 2e-3
    snapshot_every: int = 250

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return asdict(self)
