"""Every number that needs a GPU, in one command: training full-size SD 1.5, and drawing with it.

    python -m benchmarks.bench_gpu --peer <diffusers>/examples/text_to_image/train_text_to_image_lora.py

It builds .work/full-size-sd15 where it is not there; `--parts` chooses some of the measurements. Utilisation counts
1,714 GFLOP per image of 512 px (forward and backward pass of the UNet with a LoRA, gradient checkpointing off) against
the bf16 matrix rate that this card is measured to have, not the one it is sold with.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.full_size import DEFAULT_FOLDER, build
from benchmarks.gpu_variants import VARIANTS
from benchmarks.report import keep, spread
from benchmarks.train_ours import ATTENTION, train_settings
from loupe.diffusion.adapter import AdapterConfig
from loupe.diffusion.base_model import base_model_info
from loupe.diffusion.cost_model import unet_cost
from loupe.diffusion.device import DevicePolicy, choose_device, make_repeatable
from loupe.diffusion.memory import training_bytes
from loupe.diffusion.trainer_start import build_trainer
from loupe.diffusion.trial_run import made_up_examples

PARTS = ("draw", "train", "compare", "variants")
GFLOP_PER_IMAGE = 1714
MATRIX_SIDE = 8192
WARM_UP_STEPS, TIMED_STEPS, TURNS = 5, 8, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--peer", type=Path, help="path of diffusers' train_text_to_image_lora.py")
    parser.add_argument("--peer-packages", type=Path)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 16, 32])
    parser.add_argument("--compiled", type=int, nargs="*", default=[16, 32], help="batch sizes to compile as well")
    parser.add_argument("--variants-batch-size", type=int, default=16)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="all by default")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device here: nothing was measured")
    if "compare" in options.parts and not options.peer:
        raise SystemExit(
            "name the peer's script (--peer <path of train_text_to_image_lora.py>), or leave the comparison out "
            "(--parts draw train variants)"
        )
    if not (options.base / "model_index.json").is_file():
        build(options.base)
    if "draw" in options.parts:
        _draw(options)
    if "train" in options.parts:
        content = measure(options.base, options.batch_sizes, compiled_sizes=options.compiled)
        print(json.dumps(content, indent=1))
        print(f"kept in {keep('full_size_training_cuda', content)}", flush=True)
    if "compare" in options.parts:
        _compare(options)
    if "variants" in options.parts:
        measure_variants(options.base, batch_size=options.variants_batch_size)


def measure_variants(base: Path, *, batch_size: int) -> None:
    """Measure every variant of gpu_variants.py, with and without torch.compile; keep each as soon as it is known."""
    policy = choose_device()
    make_repeatable(policy)
    speeds = {}
    for compiled in (False, True):
        for name, variant in VARIANTS.items():
            with variant():
                speed = train_speed(base, policy, batch_size=batch_size, accumulation=1, compiled=compiled)
            speeds[f"{name}{'_compiled' if compiled else ''}"] = speed
            print(name, "compiled" if compiled else "", speed, flush=True)
            content = {"device": torch.cuda.get_device_name(), "batch_size": batch_size, "speeds": speeds}
            print(f"kept in {keep('training_variants_cuda', content)}", flush=True)


def measure(base: Path, batch_sizes: list[int], *, compiled_sizes: list[int]) -> dict[str, Any]:
    """Return the matrix rate, memory of the two documented settings, and speed with and without torch.compile.

    Compiling takes minutes for every batch size, so some alone are compiled.
    """
    policy = choose_device()
    make_repeatable(policy)
    rate = matrix_tflops(policy.device, policy.dtype)
    speeds = {}
    for compiled, sizes in ((False, batch_sizes), (True, compiled_sizes)):
        for batch_size in sizes:
            name = f"batch_{batch_size}{'_compiled' if compiled else ''}"
            speeds[name] = train_speed(base, policy, batch_size=batch_size, accumulation=1, compiled=compiled)
            done = speeds[name]["images_per_s"]["median"] * GFLOP_PER_IMAGE / 1e3
            speeds[name]["utilisation"] = round(done / rate, 3)
            print(name, speeds[name], flush=True)
    accumulated = train_speed(base, policy, batch_size=2, accumulation=8, compiled=False)
    return {
        "device": torch.cuda.get_device_name(),
        "dtype": policy.dtype_name,
        "matrix_rate_tflops": round(rate, 1),
        "gflop_per_image": GFLOP_PER_IMAGE,
        "speeds": speeds,
        "batch_2_accumulation_8": accumulated,
    }


def matrix_tflops(device: str, dtype: torch.dtype, *, side: int = MATRIX_SIDE, repeats: int = 20) -> float:
    """Return the best measured rate of a square matrix product, in 1e12 FLOP/s."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(repeats):
        started = _now()
        torch.mm(a, b)
        times.append(_now() - started)
    return 2 * side**3 / min(times) / 1e12


def train_speed(
    base: Path, policy: DevicePolicy, *, batch_size: int, accumulation: int, compiled: bool, resolution_px: int = 512
) -> dict[str, Any]:
    """Return images/s of several runs of optimizer steps, and the peak of allocated memory beside its estimate."""
    info = base_model_info(base, name=base.name, revision=None)
    examples = made_up_examples(base, info, side_px=resolution_px, count=64)
    adapter = AdapterConfig(8, 8, ATTENTION, info.name)
    # Else a graph that was compiled for another variant is taken again, and another batch size gets a symbolic one.
    torch.compiler.reset()
    steps = WARM_UP_STEPS + TIMED_STEPS * TURNS
    settings = train_settings(max_steps=steps, batch_size=batch_size, accumulation=accumulation, compile_=compiled)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer = build_trainer(base, info, examples, settings=settings, adapter=adapter, policy=policy)
    started = _now()
    list(trainer.run(1))
    first_step_s = _now() - started
    list(trainer.run(WARM_UP_STEPS))
    timed = []
    for _ in range(TURNS):
        started = _now()
        list(trainer.run(trainer.step + TIMED_STEPS))
        timed.append((_now() - started) / TIMED_STEPS)
    side, tokens = examples.mean.shape[-1], examples.embeddings.shape[1]
    cost = unet_cost(base, adapter=adapter, latent_side=side, text_tokens=tokens, policy=policy)
    estimate = training_bytes(cost, batch_size=batch_size, gradient_checkpointing=False, device=policy.device)
    peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None
    return {
        "images_per_s": spread([batch_size * accumulation / seconds for seconds in timed]),
        "step_s": round(statistics.median(timed), 4),
        "first_step_s": round(first_step_s, 2),
        "peak_memory_gb": None if peak is None else round(peak, 3),
        "estimated_memory_gb": round(estimate / 1e9, 3),
    }


def _compare(options: argparse.Namespace) -> None:
    packages = ["--peer-packages", str(options.peer_packages)] if options.peer_packages else []
    subprocess.run(
        [
            sys.executable, "-m", "benchmarks.bench_train", "--peer", str(options.peer), *packages,
            "--base", str(options.base), "--device", "cuda", "--precision", "bf16", "--resolution", "512",
            "--photos", "160", "--batch-size", "16", "--steps", "240", "--turns", "3", "--peer-workers", "8",
        ],
        check=True,
    )  # fmt: skip


def _draw(options: argparse.Namespace) -> None:
    subprocess.run(
        [
            sys.executable, "-m", "benchmarks.bench_generate", "--base", str(options.base), "--resolution", "512",
            "--steps", "25", "--guidance", "7.5", "--checkpoints", "3", "--prompts", "32", "--batch-size", "16",
            "--turns", "1",
        ],
        check=True,
    )  # fmt: skip


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
