"""A trainer at step 0: the base model's UNet with a fresh adapter drawn from the seed.

Every weight that training starts from comes from here. It takes no step.
"""

from __future__ import annotations

from pathlib import Path

from loupe.diffusion.adapter import AdapterConfig, add_adapter
from loupe.diffusion.batches import NoiseSchedule, require_finite
from loupe.diffusion.compilation import require_compiler
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.latent_files import Examples
from loupe.diffusion.model_loading import load_noise_scheduler, load_text_encoder, load_unet
from loupe.diffusion.noise import seeded_generator
from loupe.diffusion.optimizers import learning_rate_note
from loupe.diffusion.processes import ALONE, Processes
from loupe.diffusion.text_adapter import add_text_adapter
from loupe.diffusion.train_settings import TrainSettings
from loupe.diffusion.training import Trainer
from loupe.records import BaseModelInfo


def build_trainer(
    base: Path,
    info: BaseModelInfo,
    examples: Examples,
    *,
    settings: TrainSettings,
    adapter: AdapterConfig,
    policy: DevicePolicy,
    gradient_checkpointing: bool = False,
    processes: Processes = ALONE,
) -> Trainer:
    """Load the UNet, give it a fresh adapter drawn from the seed, and return a trainer at step 0.

    Nothing else of the base model is loaded, but for the text encoder where that is trained too.

    Raises PipelineError when an example is not finite, or compiling is asked for and cannot work here.
    """
    import torch

    require_finite(examples)
    if settings.compile:
        require_compiler(policy.device)
    note = learning_rate_note(settings.optimizer, settings.learning_rate)
    if note and processes.is_main:
        print(f"train: {note}", flush=True)
    unet = load_unet(base, device=policy.device, dtype=policy.dtype)
    add_adapter(
        unet,
        rank=adapter.rank,
        alpha=adapter.alpha,
        target_modules=adapter.target_modules,
        generator=seeded_generator(settings.seed, "adapter"),
        use_dora=adapter.use_dora,
        use_rslora=adapter.use_rslora,
        dropout=settings.lora_dropout,
    )
    text_encoder = None
    if settings.train_text_encoder:
        text_encoder = load_text_encoder(base, device=policy.device, dtype=torch.float32)
        generator = seeded_generator(settings.seed, "text encoder adapter")
        add_text_adapter(text_encoder, adapter, generator=generator, dropout=settings.lora_dropout)
    if gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    schedule = NoiseSchedule(load_noise_scheduler(base).alphas_cumprod, info.prediction_type, info.scaling_factor)
    return Trainer(
        unet, examples, schedule=schedule, settings=settings, policy=policy, processes=processes,
        text_encoder=text_encoder,
    )  # fmt: skip
