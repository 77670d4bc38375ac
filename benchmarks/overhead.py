"""What our training loop costs beside the UNet's forward and backward pass alone, on the same batches."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import spread
from benchmarks.train_ours import ATTENTION, train_settings
from loupe.diffusion.adapter import AdapterConfig
from loupe.diffusion.base_model import base_model_info
from loupe.diffusion.batches import make_batch
from loupe.diffusion.cpu_shares import n_shares, side_by_side
from loupe.diffusion.device import choose_device, make_repeatable
from loupe.diffusion.trainer_start import build_trainer
from loupe.diffusion.training import Trainer
from loupe.diffusion.trial_run import made_up_examples
from loupe.diffusion.unet_forward import predict

STEPS, TURNS = 8, 5


def measure_overhead(base: Path, *, batch_size: int, resolution_px: int) -> dict[str, Any]:
    """Return the share of a step's time that is not the UNet's: loop and bare passes alternate, several times."""
    policy = choose_device()
    make_repeatable(policy)
    info = base_model_info(base, name=base.name, revision=None)
    examples = made_up_examples(base, info, side_px=resolution_px, count=4 * batch_size)
    settings = train_settings(max_steps=STEPS * (TURNS + 1), batch_size=batch_size, accumulation=1)
    adapter = AdapterConfig(8, 8, ATTENTION, info.name)
    trainer = build_trainer(base, info, examples, settings=settings, adapter=adapter, policy=policy)
    shares = n_shares(batch_size, n_threads=torch.get_num_threads()) if policy.device == "cpu" else 1
    _loop(trainer)
    _bare(trainer, shares)
    loop, bare, whole = [], [], []
    for _ in range(TURNS):
        loop.append(_loop(trainer) / STEPS)
        bare.append(_bare(trainer, shares) / STEPS)
        whole.append(_bare(trainer, 1) / STEPS)
    overhead = [1 - b / a for a, b in zip(loop, bare, strict=True)]
    return {
        "setting": {
            "base": base.name,
            "device": policy.device,
            "batch_size": batch_size,
            "resolution_px": resolution_px,
            "shares": shares,
        },
        "bare_in_one_piece_s_per_step": spread(whole),
        "loop_s_per_step": spread(loop),
        "bare_s_per_step": spread(bare),
        "overhead_share": spread(overhead),
        "overhead_share_of_fastest": float(f"{1 - min(bare) / min(loop):.3g}"),
    }


def _loop(trainer: Trainer) -> float:
    started = _now()
    for _ in trainer.run(trainer.step + STEPS):
        pass
    return _now() - started


def _bare(trainer: Trainer, shares: int) -> float:
    """Time forward and backward passes over ready batches: no draws, no loss weights, no clipping, no optimizer."""
    size, policy = trainer.settings.batch_size, trainer.policy
    batches = [
        make_batch(trainer.examples, step * size, schedule=trainer.schedule, settings=trainer.settings).to(
            policy.device
        )
        for step in range(STEPS)
    ]
    parameters = list(trainer.parameters.values())

    def gradients(
        noisy: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        predicted = predict(trainer.unet, noisy, timesteps, text, policy=policy, autocast=False)
        return torch.autograd.grad(torch.nn.functional.mse_loss(predicted, target), parameters)

    started = _now()
    for batch in batches:
        side_by_side(gradients, batch.noisy, batch.timesteps, batch.text, batch.target, n_shares=shares)
    return _now() - started


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
