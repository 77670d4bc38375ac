"""Pictures per second of our drawing beside the usual way and beside what its networks alone cost.

    python -m benchmarks.bench_generate

The usual way reloads diffusers' own pipeline for every checkpoint and draws one picture at a time; same base model,
adapters, prompts, number of steps, sampler, guidance and dtype, and both write PNG files. The bare cost is that of as
many UNet forward passes (in our batches) and VAE decodings, and of nothing else; it is held against the time that the
second half of the pictures takes, so loading is in neither. All in turn, several times.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import keep, spread
from benchmarks.train_ours import ATTENTION
from loupe.atomic_io import sha256_file
from loupe.diffusion.adapter import WEIGHTS_FILE, AdapterConfig, adapter_state, add_adapter, read_adapter, save_adapter
from loupe.diffusion.base_model import base_model_info
from loupe.diffusion.device import choose_device, make_repeatable
from loupe.diffusion.generation import load_drawing_model, render_samples
from loupe.diffusion.model_loading import load_noise_scheduler, load_text_encoder, load_tokenizer, load_unet, load_vae
from loupe.diffusion.noise import seeded_generator
from loupe.diffusion.sample_plan import AdapterSource
from loupe.diffusion.sampling import SamplingSettings, decode_latents, make_sampler, pictures_at_once
from loupe.records import CheckpointInfo, CheckpointsManifest, PromptRecord
from loupe.workstore import WorkStore

COLOURS = ("black", "white", "brown", "blue", "grey", "red", "green", "pink")


def main() -> None:
    options = _parser().parse_args()
    make_repeatable(choose_device())
    content = measure(options)
    print(json.dumps(content, indent=1))
    print(f"kept in {keep(f'generate_{choose_device().device}', content)}")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return pictures/s of the three, their ratios turn by turn, and the setting."""
    policy = choose_device()
    whole = 2 * pictures_at_once(policy, options.batch_size)
    if options.prompts % whole:
        raise SystemExit(f"--prompts must be a multiple of {whole}, so that half of them fill whole batches")
    settings = SamplingSettings(
        width_px=options.resolution,
        height_px=options.resolution,
        guidance_scale=options.guidance,
        num_inference_steps=options.steps,
        negative_prompt="",
    )
    prompts = [
        PromptRecord(prompt_id=f"p{number}", text=_text(number), colour=None) for number in range(options.prompts)
    ]
    n_pictures = options.prompts * options.checkpoints
    turns = []
    with tempfile.TemporaryDirectory() as temporary:
        source = make_source(options.base, Path(temporary) / "checkpoints", count=options.checkpoints)
        for turn in range(options.turns):
            ways = [
                ("ours_s", lambda folder: _ours(source, prompts, settings, options.batch_size, folder)),
                ("ours_half_s", lambda folder: _ours(source, prompts[::2], settings, options.batch_size, folder)),
                ("usual_s", lambda folder: _usual(source, prompts, settings, folder)),
                ("bare_half_s", lambda _: _bare(source, n_pictures // 2, settings, options.batch_size)),
            ]
            times = {}
            for name, way in ways if turn % 2 == 0 else reversed(ways):
                folder = Path(temporary) / f"{name}-{turn}"
                folder.mkdir()
                times[name] = round(way(folder), 4)
            print(f"turn {turn + 1}: {json.dumps(times)}", flush=True)
            turns.append(times)
    return {
        "setting": {
            "base": options.base.name,
            "device": policy.device,
            "dtype": policy.dtype_name,
            "resolution_px": options.resolution,
            "sampler_steps": options.steps,
            "guidance_scale": options.guidance,
            "checkpoints": options.checkpoints,
            "prompts": options.prompts,
            "batch_size": pictures_at_once(policy, options.batch_size),
        },
        "ours_pictures_per_s": spread([n_pictures / turn["ours_s"] for turn in turns]),
        "usual_pictures_per_s": spread([n_pictures / turn["usual_s"] for turn in turns]),
        "ratio_to_usual": spread([turn["usual_s"] / turn["ours_s"] for turn in turns]),
        "time_of_further_pictures_over_bare": spread(
            [(turn["ours_s"] - turn["ours_half_s"]) / turn["bare_half_s"] for turn in turns]
        ),
        "turns": turns,
    }


def make_source(base: Path, folder: Path, *, count: int) -> AdapterSource:
    """Write `count` random adapters of rank 8 and return them as checkpoints of the base model."""
    info = base_model_info(base, name=str(base), revision=None)
    unet = load_unet(base, device="cpu", dtype=torch.float32)
    generator = seeded_generator(0, "adapter")
    add_adapter(unet, rank=8, alpha=8, target_modules=ATTENTION, generator=generator)
    config = AdapterConfig(8, 8, ATTENTION, info.name)
    checkpoints = []
    for step in range(1, count + 1):
        state = {key: 0.02 * torch.randn(w.shape, generator=generator) for key, w in adapter_state(unet).items()}
        save_adapter(folder / f"step-{step}", state, config)
        checkpoints.append(
            CheckpointInfo(
                step=step,
                folder=f"step-{step}",
                sha256=sha256_file(folder / f"step-{step}" / WEIGHTS_FILE),
                rank=8,
                alpha=8,
                target_modules=ATTENTION,
                train_loss=0.0,
            )
        )
    manifest = CheckpointsManifest(
        base_model=info,
        fingerprint="benchmark",
        checkpoints=tuple(checkpoints),
        effective_batch_size=1,
        device="",
        dtype="",
        library_versions={},
    )
    return AdapterSource(base, info, folder, manifest)


def _ours(
    source: AdapterSource, prompts: list[PromptRecord], settings: SamplingSettings, batch_size: int, folder: Path
) -> float:
    started = _now()
    done = render_samples(
        source,
        steps=[info.step for info in source.checkpoints.checkpoints],
        prompts=prompts,
        seeds_per_prompt=1,
        purpose="generate",
        root_seed=0,
        settings=settings,
        batch_size=batch_size,
        output=folder / "samples",
        store=WorkStore(folder / "work"),
    )
    assert done.n_reused == 0
    return _now() - started


def _usual(source: AdapterSource, prompts: list[PromptRecord], settings: SamplingSettings, folder: Path) -> float:
    from diffusers import StableDiffusionPipeline

    started = _now()
    policy = choose_device()
    for info in source.checkpoints.checkpoints:
        placed = {"device": policy.device, "dtype": policy.dtype}
        pipeline = StableDiffusionPipeline(
            vae=load_vae(source.base_folder, **placed),
            text_encoder=load_text_encoder(source.base_folder, **placed),
            tokenizer=load_tokenizer(source.base_folder),
            unet=load_unet(source.base_folder, **placed),
            scheduler=make_sampler(load_noise_scheduler(source.base_folder)),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        state, _ = read_adapter(source.adapter_folder(info.step))
        pipeline.unet.load_lora_adapter(state, prefix=None)
        for number, prompt in enumerate(prompts):
            picture = pipeline(
                prompt.text,
                width=settings.width_px,
                height=settings.height_px,
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                generator=torch.Generator("cpu").manual_seed(number),
            ).images[0]
            picture.save(folder / f"{info.step}-{number}.png")
    return _now() - started


@torch.inference_mode()
def _bare(source: AdapterSource, n_pictures: int, settings: SamplingSettings, batch_size: int) -> float:
    """Time the networks alone; loading them and the first call of each are not counted."""
    policy = choose_device()
    model = load_drawing_model(source.base_folder, policy=policy)
    add_adapter(model.unet, rank=8, alpha=8, target_modules=ATTENTION, generator=seeded_generator(0, "adapter"))
    size = pictures_at_once(policy, batch_size)
    side, rows = settings.width_px // 8, size * (2 if settings.guidance_scale > 1 else 1)
    noise = torch.randn(rows, model.unet.config.in_channels, side, side).to(policy.device)
    text = torch.randn(rows, 77, model.unet.config.cross_attention_dim).to(policy.device)
    timestep = torch.tensor(500, device=policy.device)
    decode_latents(model.vae, model.forward(noise, timestep, text)[0])
    started = _now()
    for _ in range(0, n_pictures, size):
        for _ in range(settings.num_inference_steps):
            predicted = model.forward(noise, timestep, text)
    for _ in range(n_pictures):
        decode_latents(model.vae, predicted[0])
    return _now() - started


def _text(number: int) -> str:
    return f"a product photo of {COLOURS[number % len(COLOURS)]} casual shoes, number {number}, on white"


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = Path(__file__).resolve().parents[1] / "data" / "demo" / "base"
    parser.add_argument("--base", type=Path, default=default, help="a diffusers folder")
    parser.add_argument("--resolution", type=int, default=128, help="px")
    parser.add_argument("--steps", type=int, default=16, help="of the sampler")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--checkpoints", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    return parser


if __name__ == "__main__":
    main()
