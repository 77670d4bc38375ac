"""Builds a trainer over the toy base model and a few made-up examples."""

from pathlib import Path

import torch

from loupe.diffusion.adapter import AdapterConfig, add_adapter
from loupe.diffusion.batches import NoiseSchedule
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.latent_files import Examples, Posteriors
from loupe.diffusion.model_loading import load_noise_scheduler, load_text_encoder, load_unet
from loupe.diffusion.noise import seeded_generator
from loupe.diffusion.processes import ALONE, Processes
from loupe.diffusion.text_adapter import add_text_adapter
from loupe.diffusion.train_settings import TrainSettings
from loupe.diffusion.training import Trainer

CPU = DevicePolicy("cpu", "float32", "test")
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def tiny_settings(**changes) -> TrainSettings:
    settings = {
        "seed": 0,
        "max_steps": 8,
        "batch_size": 4,
        "gradient_accumulation_steps": 1,
        "compile": False,
        "optimizer": "adamw",
        "learning_rate": 1e-2,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 2,
        "adam_betas": (0.9, 0.999),
        "adam_epsilon": 1e-8,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "lora_dropout": 0.0,
        "ema_decay": None,
        "noise_offset": 0.0,
        "snr_gamma": None,
        "caption_dropout": 0.1,
    }
    return TrainSettings(**{**settings, **changes})


def tiny_examples(n_examples: int = 6) -> Examples:
    """`n_examples` latents, each with a caption of its own; row 0 of the embeddings is the empty caption."""
    generator = torch.Generator().manual_seed(11)
    return Examples(
        image_ids=tuple(f"image{index}" for index in range(n_examples)),
        mean=5 * torch.randn(n_examples, 4, 1, 1, generator=generator).expand(-1, -1, 8, 8).contiguous(),
        std=torch.full((n_examples, 4, 8, 8), 0.1),
        caption_index=torch.arange(1, n_examples + 1),
        embeddings=torch.randn(n_examples + 1, 77, 16, generator=generator),
        token_ids=torch.randint(50, (n_examples + 1, 77), generator=generator),
        mirrored=Posteriors(
            5 * torch.randn(n_examples, 4, 8, 8, generator=generator), torch.full((n_examples, 4, 8, 8), 0.2)
        ),
    )


def tiny_trainer(
    base: Path,
    *,
    examples: Examples | None = None,
    policy: DevicePolicy = CPU,
    prediction_type: str = "epsilon",
    rank: int = 4,
    target_modules: tuple[str, ...] = ATTENTION,
    use_dora: bool = False,
    use_rslora: bool = False,
    gradient_checkpointing: bool = False,
    processes: Processes = ALONE,
    **settings,
) -> Trainer:
    unet = load_unet(base, device="cpu", dtype=policy.dtype)
    generator = seeded_generator(settings.get("seed", 0), "adapter")
    add_adapter(
        unet,
        rank=rank,
        alpha=2.0 * rank,
        target_modules=target_modules,
        generator=generator,
        use_dora=use_dora,
        use_rslora=use_rslora,
        dropout=settings.get("lora_dropout", 0.0),
    )
    text_encoder = None
    if settings.get("train_text_encoder"):
        text_encoder = load_text_encoder(base, device="cpu", dtype=torch.float32)
        config = AdapterConfig(rank, 2.0 * rank, (), "tiny", use_dora=use_dora, use_rslora=use_rslora)
        add_text_adapter(text_encoder, config, generator=generator, dropout=settings.get("lora_dropout", 0.0))
    if gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return Trainer(
        unet,
        examples or tiny_examples(),
        schedule=NoiseSchedule(load_noise_scheduler(base).alphas_cumprod, prediction_type, 0.18215),
        settings=tiny_settings(**settings, processes=processes.count),
        policy=policy,
        processes=processes,
        text_encoder=text_encoder,
    )
