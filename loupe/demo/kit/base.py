"""The parts of the demo base model and how they are saved as one diffusers folder. Trains nothing.

Noise schedule: v-prediction with zero terminal SNR and trailing timesteps (Lin et al. 2024, "Common Diffusion Noise
Schedules and Sample
Steps are Flawed"): the last step holds no signal, so a white background can be painted from pure noise.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from loupe.atomic_io import write_json
from loupe.demo.kit.bpe import END, START, Merge, vocabulary
from loupe.demo.kit.settings import CONTEXT_LENGTH, LATENT_CHANNELS, SIZE_PX, KitSettings


def build_tokenizer(merges: list[Merge]) -> CLIPTokenizer:
    """Transformers' CLIP tokenizer over our vocabulary; pads with the end token as SD 1.5 does."""
    return CLIPTokenizer(
        vocab=vocabulary(merges), merges=list(merges), unk_token=END, bos_token=START, eos_token=END, pad_token=END,
        model_max_length=CONTEXT_LENGTH,
    )  # fmt: skip


def build_text_encoder(settings: KitSettings, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder; initial weights come from the settings' seed."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.text_hidden,
        intermediate_size=4 * settings.text_hidden,
        num_hidden_layers=settings.text_layers,
        num_attention_heads=settings.text_heads,
        max_position_embeddings=CONTEXT_LENGTH,
        projection_dim=settings.text_hidden,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed + 2)
        return CLIPTextModel(config)


def build_unet(settings: KitSettings) -> UNet2DConditionModel:
    """An untrained UNet on 16x16 latents with cross-attention on the two upper levels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed + 3)
        return UNet2DConditionModel(
            sample_size=SIZE_PX // 8,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            layers_per_block=1,
            block_out_channels=settings.unet_blocks,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=settings.text_hidden,
            attention_head_dim=4,
            norm_num_groups=16,
        )


def noise_scheduler() -> DDPMScheduler:
    """The training schedule; samplers are made from its config."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,
        clip_sample=False,
    )


def save_base(
    folder: Path,
    *,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
) -> None:
    """Write the diffusers folder with float16 safetensors. The modules given are left in float16."""
    pipeline = StableDiffusionPipeline(
        vae=vae.half(), text_encoder=text_encoder.half(), tokenizer=tokenizer, unet=unet.half(),
        scheduler=noise_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)
    for part in ("text_encoder", "unet", "vae"):
        path = folder / part / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        if "dtype" in config:
            config["dtype"] = "float32"  # stored in half precision, meant to be computed in single precision
        write_json(path, config)
