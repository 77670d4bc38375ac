"""Full-size Stable Diffusion 1.5 with random weights on the CPU: two training steps at 512 px, time and peak memory.

    python -m benchmarks.bench_full_size            # builds .work/full-size-sd15 first where it is not there
    python -m benchmarks.bench_full_size --validate # then also a validation of 16 rows beside the trainer

The peak is that of the whole process, Python included, and stands beside what loupe.diffusion.memory had estimated.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.full_size import DEFAULT_FOLDER, N_PARAMETERS, build
from benchmarks.report import keep

if TYPE_CHECKING:
    from loupe.diffusion.cost_model import UNetCost
    from loupe.diffusion.device import DevicePolicy
    from loupe.diffusion.latent_files import Examples
    from loupe.records import BaseModelInfo


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=DEFAULT_FOLDER)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--validate", action="store_true", help="also validate 2 photos at 8 timesteps")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--resolution", type=int, default=512, help="px")
    options = parser.parse_args()
    if not (options.folder / "model_index.json").is_file():
        print(
            f"building {options.folder}; start it again to measure without what building leaves in memory", flush=True
        )
        build(options.folder)
        return
    content = measure(
        options.folder,
        steps=options.steps,
        resolution_px=options.resolution,
        gradient_checkpointing=options.gradient_checkpointing,
        validate=options.validate,
    )
    section = "full_size_training_cpu" + ("_checkpointed" if options.gradient_checkpointing else "")
    section += "_validated" if options.validate else ""
    print(json.dumps(content, indent=1))
    print(f"kept in {keep(section, content)}")


def measure(
    base: Path, *, steps: int, resolution_px: int, gradient_checkpointing: bool, validate: bool
) -> dict[str, Any]:
    """Train `steps` steps of batch 1 on the CPU, validate if asked to, and return times, losses and memory."""
    from benchmarks.train_ours import ATTENTION, train_settings
    from loupe.diffusion.adapter import AdapterConfig
    from loupe.diffusion.base_model import base_model_info
    from loupe.diffusion.cost_model import unet_cost
    from loupe.diffusion.device import DevicePolicy, make_repeatable
    from loupe.diffusion.memory import training_bytes
    from loupe.diffusion.train_log import peak_memory_gb
    from loupe.diffusion.trainer_start import build_trainer
    from loupe.diffusion.trial_run import made_up_examples

    policy = DevicePolicy("cpu", "float32", "what this benchmark is about")
    make_repeatable(policy)
    info = base_model_info(base, name=base.name, revision=None)
    examples = made_up_examples(base, info, side_px=resolution_px, count=steps)
    adapter = AdapterConfig(8, 8, ATTENTION, info.name)
    side, tokens = examples.mean.shape[-1], examples.embeddings.shape[1]
    cost = unet_cost(base, adapter=adapter, latent_side=side, text_tokens=tokens, policy=policy)
    if cost.n_base_parameters != N_PARAMETERS["unet"]:
        print(f"note: this UNet has {cost.n_base_parameters:,} parameters, not those of SD 1.5", flush=True)
    estimate = training_bytes(cost, batch_size=1, gradient_checkpointing=gradient_checkpointing, device="cpu")
    before_gb = peak_memory_gb("cpu")
    started = time.perf_counter()
    trainer = build_trainer(
        base, info, examples, settings=train_settings(max_steps=steps, batch_size=1, accumulation=1),
        adapter=adapter, policy=policy, gradient_checkpointing=gradient_checkpointing,
    )  # fmt: skip
    load_s, loaded_gb = time.perf_counter() - started, peak_memory_gb("cpu")
    step_s, losses = [], []
    rows = trainer.run(steps)
    for _ in range(steps):
        started = time.perf_counter()
        losses.append(next(rows).loss)
        step_s.append(round(time.perf_counter() - started, 2))
    trained_gb = peak_memory_gb("cpu")
    validation = _validation(base, info, trainer.examples, cost, policy=policy) if validate else {}
    flop = cost.checkpointed_flop if gradient_checkpointing else cost.training_flop
    return {
        "setting": {
            "resolution_px": resolution_px, "batch_size": 1, "gradient_checkpointing": gradient_checkpointing,
            "steps": steps, "dtype": policy.dtype_name, "base_parameters": cost.n_base_parameters,
            "adapter_parameters": cost.n_adapter_parameters,
        },
        "losses": losses,
        "load_s": round(load_s, 1),
        "step_s": step_s,
        "gflop_per_image": round(flop / 1e9),
        "gflop_per_s": round(flop / 1e9 / min(step_s)),
        "peak_memory_gb": trained_gb,
        "peak_memory_gb_before_loading": before_gb,
        "peak_memory_gb_after_loading": loaded_gb,
        "estimated_memory_gb": round(estimate / 1e9, 3),
        **validation,
    }  # fmt: skip


def _validation(
    base: Path, info: BaseModelInfo, examples: Examples, cost: UNetCost, *, policy: DevicePolicy
) -> dict[str, Any]:
    """Load a UNet beside the trainer's, as a checkpoint's validation does, and take ROWS_AT_ONCE losses."""
    from loupe.diffusion.memory import Beside, TrainingSetting, run_bytes
    from loupe.diffusion.model_loading import load_noise_scheduler, load_unet
    from loupe.diffusion.train_log import peak_memory_gb
    from loupe.diffusion.train_memory import beside_bytes
    from loupe.diffusion.validation import ROWS_AT_ONCE, make_validation_set, validation_losses

    setting = TrainingSetting(
        resolution_px=512, batch_size=1, gradient_accumulation_steps=1, gradient_checkpointing=False,
        beside=Beside(beside_bytes(cost.weight_bytes), ROWS_AT_ONCE * cost.row_bytes),
    )  # fmt: skip
    data = make_validation_set(
        examples, alphas_cumprod=load_noise_scheduler(base).alphas_cumprod,
        n_timesteps=ROWS_AT_ONCE // len(examples.image_ids), prediction_type=info.prediction_type,
        scaling_factor=info.scaling_factor, seed=0,
    )  # fmt: skip
    started = time.perf_counter()
    unet = load_unet(base, device=policy.device, dtype=policy.dtype)
    loaded_gb = peak_memory_gb("cpu")
    losses = validation_losses(unet, data, policy=policy, what="validation")
    return {
        "validation_rows": losses.numel(),
        "validation_s": round(time.perf_counter() - started, 1),
        "peak_memory_gb_with_second_unet": loaded_gb,
        "peak_memory_gb_with_validation": peak_memory_gb("cpu"),
        "estimated_memory_gb_with_validation": round(run_bytes(cost, setting, device="cpu") / 1e9, 3),
    }


if __name__ == "__main__":
    main()
