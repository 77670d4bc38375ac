"""Images per second of our training beside diffusers' own LoRA script, both in turn, several times, on this machine.

    python -m benchmarks.bench_train --peer <diffusers>/examples/text_to_image/train_text_to_image_lora.py

The script is given by path and run as it is; it needs the package `datasets`, which may lie in a folder of its own
(--peer-packages). Same base model, photos, batch, accumulation, precision, rank, optimizer and number of steps; our
encoding is counted in. By default it is the demo's own job: 250 photos, 400 steps of batch 16. `--overhead` measures
our loop beside the bare UNet instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.photos import write_photos
from benchmarks.report import keep, spread

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    options = _parser().parse_args()
    if options.overhead:
        from benchmarks.overhead import measure_overhead

        section = "loop_overhead"
        content = measure_overhead(options.base, batch_size=options.batch_size, resolution_px=options.resolution)
    else:
        if options.peer is None:
            raise SystemExit("name the peer's script: --peer <path of train_text_to_image_lora.py>")
        section = f"train_against_diffusers_{options.device}_batch_{options.batch_size}_visits_{_visits(options):g}"
        content = compare(options)
    print(json.dumps(content, indent=1))
    print(f"kept in {keep(section, content)}")


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run both sides in turn and return their speeds, the ratio of each turn, and its spread."""
    images = options.steps * options.batch_size * options.accumulation
    turns = []
    with tempfile.TemporaryDirectory() as temporary:
        photos = write_photos(Path(temporary) / "photos", count=options.photos, side_px=options.resolution)
        for turn in range(options.turns):
            sides = {}
            # Whoever runs first finds a colder machine: so the order alternates.
            for side in ("ours", "peer") if turn % 2 == 0 else ("peer", "ours"):
                sides[side] = _run(side, options, photos, Path(temporary) / f"{side}-{turn}")
                print(f"turn {turn + 1}, {side}: {json.dumps(sides[side])}", flush=True)
            turns.append(sides)
    ours = [images / (turn["ours"]["encode_s"] + turn["ours"]["train_s"]) for turn in turns]
    peer = [images / turn["peer"]["train_s"] for turn in turns]
    processes = [turn["peer"]["process_s"] / turn["ours"]["process_s"] for turn in turns]
    return {
        "setting": {
            "base": options.base.name, "device": options.device, "precision": options.precision,
            "resolution_px": options.resolution, "photos": options.photos, "batch_size": options.batch_size,
            "gradient_accumulation_steps": options.accumulation, "steps": options.steps,
            "visits_per_photo": _visits(options), "turns": options.turns,
            "compile": options.compile, "peer": options.peer.name,
        },
        "ours_images_per_s": spread(ours),
        "peer_images_per_s": spread(peer),
        "ratio": spread([a / b for a, b in zip(ours, peer, strict=True)]),
        "ratio_of_whole_processes": spread(processes),
        "turns": turns,
    }  # fmt: skip


def _visits(options: argparse.Namespace) -> float:
    return round(options.steps * options.batch_size * options.accumulation / options.photos, 1)


def _run(side: str, options: argparse.Namespace, photos: Path, output: Path) -> dict[str, float]:
    output.mkdir()
    report = output / "report.json"
    command = _ours(options, photos, output, report) if side == "ours" else _peer(options, photos, output, report)
    path = [str(ROOT), *([str(options.peer_packages)] if options.peer_packages and side == "peer" else [])]
    path += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(path), "LOUPE_DEVICE": options.device, "HF_HUB_OFFLINE": "1",
        **({"CUDA_VISIBLE_DEVICES": ""} if options.device == "cpu" else {}),
    }  # fmt: skip
    started = time.perf_counter()
    with (output / "log").open("w") as log:
        done = subprocess.run(command, env=environment, stdout=log, stderr=log, cwd=output, check=False)
    process_s = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"{side} failed:\n{(output / 'log').read_text()[-4000:]}")
    content = json.loads(report.read_text())
    if content["steps"] != options.steps:
        raise SystemExit(f"{side} made {content['steps']} steps, {options.steps} were asked for")
    return {name: round(value, 4) for name, value in {**content, "process_s": process_s}.items() if value is not None}


def _ours(options: argparse.Namespace, photos: Path, output: Path, report: Path) -> list[str]:
    return [
        sys.executable, "-m", "benchmarks.train_ours", "--base", str(options.base.resolve()), "--photos", str(photos),
        "--output", str(output), "--report", str(report), "--steps", str(options.steps),
        "--batch-size", str(options.batch_size), "--accumulation", str(options.accumulation),
        "--resolution", str(options.resolution), "--rank", str(options.rank),
        *(["--compile"] if options.compile else []),
    ]  # fmt: skip


def _peer(options: argparse.Namespace, photos: Path, output: Path, report: Path) -> list[str]:
    return [
        sys.executable, "-m", "benchmarks.train_peer", str(report), str(options.peer.resolve()),
        "--pretrained_model_name_or_path", str(options.base.resolve()), "--train_data_dir", str(photos),
        "--caption_column", "text", "--resolution", str(options.resolution), "--center_crop",
        "--train_batch_size", str(options.batch_size), "--gradient_accumulation_steps", str(options.accumulation),
        "--max_train_steps", str(options.steps), "--learning_rate", "1e-4", "--lr_scheduler", "constant",
        "--lr_warmup_steps", "0", "--rank", str(options.rank), "--mixed_precision", options.precision, "--seed", "0",
        "--dataloader_num_workers", str(options.peer_workers), "--output_dir", str(output / "adapter"),
        "--cache_dir", str(output / "cache"), "--checkpointing_steps", "100000",
    ]  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peer", type=Path, help="path of diffusers' train_text_to_image_lora.py")
    parser.add_argument("--peer-packages", type=Path, help="folder that holds `datasets`, if it is not installed")
    parser.add_argument("--peer-workers", type=int, default=0, help="of the peer's data loader; 0 is its own default")
    parser.add_argument("--base", type=Path, default=ROOT / "data" / "demo" / "base", help="a diffusers folder")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("no", "bf16"), default="no", help="of the peer; ours is the policy's")
    parser.add_argument("--resolution", type=int, default=128, help="px")
    parser.add_argument("--photos", type=int, default=250)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="our side runs torch.compile")
    parser.add_argument("--overhead", action="store_true", help="measure our loop beside the bare UNet instead")
    return parser


if __name__ == "__main__":
    main()
