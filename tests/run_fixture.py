"""Runs on disk in every state the readers must bear: complete, running, partial, stale, corrupt, absent.

Built from the records themselves, with small drawings as pictures; no torch and no stage is needed. The numbers are
made up and smooth, so that a test can say what a page must show.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from ruamel.yaml import YAML

from loupe.atomic_io import sha256_file, write_bytes, write_csv, write_json, write_record
from loupe.evaluation_records import EvaluationManifest, ExtractorInfo, Null, ReferenceManifest, Selection
from loupe.metric_specs import DEMO_CLASSIFIER, DEMO_CLIP, METRIC_SPECS, applicable_specs, checkpoint_columns
from loupe.paths import ProjectPaths, step_name
from loupe.records import (
    BaseModelInfo,
    CheckpointInfo,
    CheckpointsManifest,
    DatasetManifest,
    ExportManifest,
    LatentsManifest,
    PromptRecord,
    SampleRecord,
    SamplesManifest,
    TrainRow,
)
from loupe.train_records import TelemetryRow, ValidationRow, ValidationTimestepRow

ROOT = Path(__file__).resolve().parents[1]
NASTY = "a <script>alert(1)</script> *bold* :red[x] [link](https://example.org/) & <img src=x onerror=alert(2)> shoe"
COLOURS = {"black": "#2b2b2e", "red": "#c8352c", "blue": "#2f62b4", "yellow": "#e6b91e"}
EXTRACTORS = (
    ExtractorInfo(name=DEMO_CLASSIFIER, role="inception", kind="domain_trained", sha256="1" * 64, resize="none"),
    ExtractorInfo(name=DEMO_CLIP, role="clip", kind="domain_trained", sha256="2" * 64, resize="none"),
)
SCORES = ("fd_demo", "clip_demo", "colour_demo", "background_ok", "is_demo")
BASE = BaseModelInfo(
    name="demo", revision=None, sha256="b" * 64, prediction_type="epsilon", latent_channels=4, scaling_factor=0.18215,
    sample_size_px=128,
)  # fmt: skip
Painter = Callable[[str, int, float, int], Image.Image]
"""(colour name, seed index, share of the training done, side in px) -> picture"""


@dataclass(frozen=True)
class Shape:
    """How large a fixture run is."""

    steps: tuple[int, ...] = (75, 150, 225, 300)
    seeds: int = 2
    size_px: int = 64
    captions: int = 1

    @property
    def all_steps(self) -> tuple[int, ...]:
        return (0, *self.steps)


def paint_shoe(colour: str, seed_index: int, share: float, size_px: int) -> Image.Image:
    """A coloured shape that turns from a blob on a grey ground into a shoe on white as training goes on."""
    ground = int(150 + 105 * share)
    image = Image.new("RGB", (size_px, size_px), (ground, ground, min(255, ground + 4 * (3 - seed_index % 4))))
    draw, unit = ImageDraw.Draw(image), size_px / 16
    top = 5 + seed_index % 3
    draw.ellipse((3 * unit, top * unit, 12 * unit, 12 * unit), fill=COLOURS[colour])
    if share > 0.3:
        draw.rectangle((2 * unit, 9 * unit, 14 * unit, 11.5 * unit), fill=COLOURS[colour])
    if share > 0.6:
        draw.rectangle((2 * unit, 11.5 * unit, 14 * unit, 12.5 * unit), fill="#8a8a8a")
    return image


def prompts_of(shape: Shape) -> tuple[PromptRecord, ...]:
    fixed = [
        PromptRecord(prompt_id=f"{c}_shoes", text=f"a professional product photo of {c} casual shoes", colour=c)
        for c in COLOURS
    ]
    captions = [PromptRecord(prompt_id=f"val_{1000 + i}", text=NASTY, colour=None) for i in range(shape.captions)]
    return (*fixed, *captions)


def complete_run(root: Path, shape: Shape = Shape(), paint: Painter = paint_shoe) -> Path:
    """A whole run that matches its params.yaml and dvc.lock."""
    write_params(root, shape)
    write_prepared(root, shape)
    write_checkpoints(root, shape)
    write_validation(root, shape)
    write_telemetry(root, shape)
    write_samples(root, shape, paint)
    write_evaluation(root, shape)
    write_selection(root, shape)
    write_ends(root, shape)
    write_lock(root)
    return root


def partial_run(root: Path, shape: Shape = Shape()) -> Path:
    """Trained, but nothing generated yet."""
    write_params(root, shape)
    write_prepared(root, shape)
    write_checkpoints(root, shape)
    write_validation(root, shape)
    write_telemetry(root, shape)
    write_lock(root)
    age(root)
    return root


def running_run(root: Path, shape: Shape = Shape(), *, drawn_steps: tuple[int, ...] = (0, 75)) -> Path:
    """`generate` is at work under DVC: some pictures are there, their manifest is not."""
    complete_run(root, shape)
    paths = ProjectPaths(root)
    (paths.samples / "manifest.json").unlink()
    for file in paths.samples.rglob("*.png"):
        if int(file.stem) not in drawn_steps:
            file.unlink()
    shutil.rmtree(paths.evaluation)
    shutil.rmtree(paths.confirmation)
    for file in ("checkpoints.csv", "per_image.csv", "summary.json", "selection.json", "final.json"):
        (paths.metrics / file).unlink()
    hold_lock(root, paths.samples, pid=os.getpid())
    return root


def stale_run(root: Path, shape: Shape = Shape()) -> Path:
    """Complete, but params.yaml was edited afterwards."""
    complete_run(root, shape)
    edit_params(root, "train", "learning_rate", 0.0005)
    return root


def corrupt_run(root: Path, shape: Shape = Shape()) -> Path:
    """Complete, but then: NaN and half a row in the scores, a truncated selection, a half PNG, a missing one."""
    complete_run(root, shape)
    paths = ProjectPaths(root)
    scores = paths.metrics / "checkpoints.csv"
    lines = scores.read_text().splitlines()
    cells = lines[1].split(",")
    cells[lines[0].split(",").index("fd_demo")] = "nan"
    scores.write_text("\n".join([lines[0], ",".join(cells), *lines[2:-1], lines[-1][:9]]) + "\n")
    (paths.metrics / "selection.json").write_text('{"verdict": "sel')
    half = paths.samples / "red_shoes-0" / "000075.png"
    half.write_bytes(half.read_bytes()[:100])
    (paths.samples / "red_shoes-0" / "000150.png").unlink()
    return root


RUNS: dict[str, Callable[[Path], Path]] = {
    "absent": lambda root: root,
    "partial": partial_run,
    "running": running_run,
    "stale": stale_run,
    "corrupt": corrupt_run,
    "complete": complete_run,
}


# --- parts -----------------------------------------------------------------------------------------------------------


def write_params(root: Path, shape: Shape) -> None:
    document = YAML().load(ROOT / "params.yaml")
    document["train"]["max_steps"] = shape.steps[-1]
    document["train"]["checkpoint_every"] = shape.steps[0]
    document["generate"]["seeds_per_prompt"] = shape.seeds
    document["generate"]["val_captions"] = shape.captions
    document["generate"]["prompts"] = {p.prompt_id: p.text for p in prompts_of(shape) if p.colour}
    root.mkdir(parents=True, exist_ok=True)
    YAML().dump(document, root / "params.yaml")


def edit_params(root: Path, section: str, key: str, value: object) -> None:
    document = YAML().load(root / "params.yaml")
    document[section][key] = value
    YAML().dump(document, root / "params.yaml")


def write_lock(root: Path) -> None:
    """dvc.lock as DVC writes it, as far as parameters go."""
    params = YAML(typ="safe").load(root / "params.yaml")
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    content = {
        name: {"cmd": stage["cmd"], "params": {"params.yaml": {key: params[key] for key in stage["params"]}}}
        for name, stage in stages.items()
    }
    YAML().dump({"schema": "2.0", "stages": content}, root / "dvc.lock")


def hold_lock(root: Path, path: Path, *, pid: int) -> None:
    """What DVC keeps in its read-write lock while a stage runs."""
    write_json(root / ".dvc" / "tmp" / "rwlock", {"write": {str(path): {"pid": pid, "cmd": "dvc repro"}}, "read": {}})


def age(root: Path, seconds: float = 3600) -> None:
    """Make everything look written a while ago, so that nothing seems to be at work."""
    for path in [root, *root.rglob("*")]:
        stat = path.stat()
        os.utime(path, (stat.st_atime - seconds, stat.st_mtime - seconds))


def write_prepared(root: Path, shape: Shape) -> None:
    paths = ProjectPaths(root)
    captions = [
        {
            "image_id": str(1000 + i), "split": "val", "file": f"val/images/{1000 + i}.png", "caption": NASTY,
            "sha256": "3" * 64, "source_width_px": 128, "source_height_px": 128, "attributes": {},
        }
        for i in range(shape.captions)
    ]  # fmt: skip
    write_bytes(paths.dataset / "val" / "captions.jsonl", "".join(json.dumps(c) + "\n" for c in captions).encode())
    write_record(
        paths.dataset / "manifest.json",
        DatasetManifest(
            source="demo", resolution_px=128, seed=42, n_rows=480, n_selected=300, n_missing=0, missing_ids=(),
            n_examples={"train": 210, "val": 45, "test": 45}, malformed_rows=(), rejected=(), findings=(),
            attribute_counts={}, captions_sha256={"train": "4" * 64, "val": "5" * 64, "test": "6" * 64},
        ),
    )  # fmt: skip
    write_record(
        paths.latents / "manifest.json",
        LatentsManifest(
            base_model=BASE, dtype="float32", resolution_px=128, image_ids={}, captions_sha256={}, files={}
        ),
    )
    write_record(
        paths.reference / "manifest.json",
        ReferenceManifest(extractors=EXTRACTORS, n_real={"val": 45}, nulls={}, real_scores={}, files={}),
    )


def write_checkpoints(root: Path, shape: Shape) -> None:
    paths = ProjectPaths(root)
    curve = [
        TrainRow(
            step=step, loss=0.09 + 0.12 * 0.985**step + 0.02 * (step * 7919 % 13 / 13 - 0.5),
            loss_smoothed=0.09 + 0.12 * 0.985**step, learning_rate=min(1, step / 20) * 1e-3, grad_norm=0.4,
        )
        for step in range(1, shape.steps[-1] + 1)
    ]  # fmt: skip
    write_csv(paths.metrics / "train.csv", list(TrainRow.model_fields), [row.model_dump() for row in curve])
    checkpoints = tuple(
        CheckpointInfo(
            step=step, folder=step_name(step), sha256=f"{step:064x}", rank=8, alpha=16,
            target_modules=("to_q", "to_k", "to_v", "to_out.0"), train_loss=curve[step - 1].loss_smoothed,
        )
        for step in shape.steps
    )  # fmt: skip
    write_record(
        paths.checkpoints / "manifest.json",
        CheckpointsManifest(
            base_model=BASE, fingerprint="c" * 64, checkpoints=checkpoints, effective_batch_size=16, device="cpu",
            dtype="float32", library_versions={"torch": "2.15.0"},
        ),
    )  # fmt: skip


def validation_loss(shape: Shape, step: int, timestep: int) -> float:
    """Falls until three quarters of the training, then rises a little; larger at low timesteps."""
    share = step / shape.steps[-1]
    return round(0.4 - 0.0003 * timestep - 0.08 * share + 0.5 * max(0.0, share - 0.75) ** 2, 6)


def write_validation(root: Path, shape: Shape) -> None:
    """Both curves of metrics/, on eight timesteps."""
    metrics = ProjectPaths(root).metrics
    timesteps = range(62, 1000, 125)
    means = {s: sum(validation_loss(shape, s, t) for t in timesteps) / len(timesteps) for s in shape.all_steps}
    rows = []
    for step, mean in means.items():
        diff = mean - means[0] if step else None
        lo, hi = (diff - 0.004, diff + 0.004) if diff is not None else (None, None)
        rows.append(
            ValidationRow(
                step=step, val_loss=mean, val_loss_diff_base=diff, val_loss_diff_base_lo=lo, val_loss_diff_base_hi=hi,
                n_images=45,
            )
        )  # fmt: skip
    write_csv(metrics / "validation.csv", list(ValidationRow.model_fields), [row.model_dump() for row in rows])
    write_csv(
        metrics / "validation_timesteps.csv",
        list(ValidationTimestepRow.model_fields),
        [
            {"step": step, "timestep": timestep, "loss": validation_loss(shape, step, timestep)}
            for step in shape.all_steps
            for timestep in timesteps
        ],
    )


def write_telemetry(root: Path, shape: Shape, *, until: int | None = None) -> None:
    """A row every five steps."""
    rows = [
        TelemetryRow(step=step, images_per_s=40 + step % 3, elapsed_s=0.4 * step, peak_memory_gb=1.25).model_dump()
        for step in range(5, (until or shape.steps[-1]) + 1, 5)
    ]
    write_csv(ProjectPaths(root).train_telemetry, list(TelemetryRow.model_fields), rows)


def write_previews(root: Path, shape: Shape, paint: Painter = paint_shoe, *, steps: tuple[int, ...] = ()) -> None:
    """The four fixed prompts, seed index 0, at the base and at every checkpoint (or at `steps`)."""
    folder, prompts = ProjectPaths(root).previews, tuple(p for p in prompts_of(shape) if p.colour)
    samples = []
    for prompt in prompts:
        for step in steps or shape.all_steps:
            file, content = f"{prompt.prompt_id}-0/{step}.png", draw_sample(prompt, 0, step, shape, paint)
            write_bytes(folder / file, content)
            sha256 = hashlib.sha256(content).hexdigest()
            samples.append(
                SampleRecord(
                    prompt_id=prompt.prompt_id, seed_index=0, seed=1_000_000, step=step, file=file, sha256=sha256,
                    invalid_reason=None,
                )
            )  # fmt: skip
    write_record(
        folder / "manifest.json",
        SamplesManifest(
            base_model=BASE, checkpoints_fingerprint="c" * 64, steps=steps or shape.all_steps, prompts=prompts,
            seeds_per_prompt=1, samples=tuple(samples), width_px=shape.size_px, height_px=shape.size_px,
            guidance_scale=4.0, num_inference_steps=20, negative_prompt="", sampler="DPMSolverMultistepScheduler",
        ),
    )  # fmt: skip


def draw_sample(prompt: PromptRecord, seed_index: int, step: int, shape: Shape, paint: Painter) -> bytes:
    buffer = io.BytesIO()
    colour = prompt.colour or "yellow"
    paint(colour, seed_index, step / shape.steps[-1], shape.size_px).save(buffer, format="PNG")
    return buffer.getvalue()


def write_samples(root: Path, shape: Shape, paint: Painter) -> None:
    folder = ProjectPaths(root).samples
    samples = []
    for prompt in prompts_of(shape):
        for seed_index in range(shape.seeds):
            for step in shape.all_steps:
                file = f"{prompt.prompt_id}-{seed_index}/{step:06d}.png"
                content = draw_sample(prompt, seed_index, step, shape, paint)
                write_bytes(folder / file, content)
                black = (prompt.prompt_id, seed_index, step) == ("blue_shoes", 1, shape.steps[0])
                samples.append(
                    SampleRecord(
                        prompt_id=prompt.prompt_id, seed_index=seed_index, seed=1_000_000 + seed_index, step=step,
                        file=file, sha256=hashlib.sha256(content).hexdigest(),
                        invalid_reason="flat" if black else None,
                    )
                )  # fmt: skip
    write_record(
        folder / "manifest.json",
        SamplesManifest(
            base_model=BASE, checkpoints_fingerprint="c" * 64, steps=shape.all_steps, prompts=prompts_of(shape),
            seeds_per_prompt=shape.seeds, samples=tuple(samples), width_px=shape.size_px, height_px=shape.size_px,
            guidance_scale=4.0, num_inference_steps=20, negative_prompt="", sampler="DPMSolverMultistepScheduler",
        ),
    )  # fmt: skip


def score_row(shape: Shape, step: int, keys: list[str]) -> dict[str, float | int]:
    share = step / shape.steps[-1]
    n_images = len(prompts_of(shape)) * shape.seeds
    invalid = int(step == shape.steps[0])
    row: dict[str, float | int] = {
        "step": step, "n_images": n_images, "n_used": n_images - invalid, "n_real": 45, "invalid_count": invalid,
    }  # fmt: skip
    for key in keys:
        gain = {"fd_demo": -61.3, "clip_demo": 9.2, "is_demo": -2.4}.get(key, 0.85) * share**0.6
        if step == 0 and key == "is_demo":
            continue
        value = {"fd_demo": 74.2, "clip_demo": 18.1, "is_demo": 6.1}.get(key, 0.12) + gain
        half = {"clip_demo": 1.1}.get(key, 0.06)
        row[key] = round(value, 4)
        if METRIC_SPECS[key].level == "image":
            row |= {
                f"{key}_lo": round(value - half, 4),
                f"{key}_hi": round(min(1, value + half) if half < 1 else value + half, 4),
            }
        if step:
            spread = abs(gain) * 0.12
            row |= {f"{key}_diff_base": round(gain, 4), f"{key}_diff_base_lo": round(gain - spread, 4)}
            row |= {f"{key}_diff_base_hi": round(gain + spread, 4)}
    return row


def write_evaluation(root: Path, shape: Shape) -> None:
    paths = ProjectPaths(root)
    keys = [key for key in applicable_specs(EXTRACTORS) if key in SCORES]
    rows = [score_row(shape, step, keys) for step in shape.all_steps]
    write_csv(paths.metrics / "checkpoints.csv", checkpoint_columns(keys), rows)
    manifest = SamplesManifest.model_validate_json((paths.samples / "manifest.json").read_bytes())
    columns = ["prompt_id", "seed_index", "seed", "step", "file", "sha256", "invalid_reason", "clip", "colour_ok",
               "background_ok"]  # fmt: skip
    write_csv(
        paths.metrics / "per_image.csv",
        columns,
        [
            {
                **sample.model_dump(),
                "clip": round(18 + 9 * sample.step / shape.steps[-1] + sample.seed_index, 3),
                "colour_ok": int(sample.step >= shape.steps[0]),
                "background_ok": int(sample.step > shape.steps[0]),
            }
            if sample.invalid_reason is None
            else sample.model_dump()
            for sample in manifest.samples
        ],
    )
    write_json(paths.metrics / "summary.json", {"step": shape.steps[-1], "fd_demo": rows[-1]["fd_demo"]})
    draws = {"n_a": 22, "n_b": 23, "n_draws": 50}
    write_record(
        paths.evaluation / "manifest.json",
        EvaluationManifest(
            extractors=EXTRACTORS, metric_keys=tuple(keys), n_real=45,
            nulls={
                "fd_demo": Null(mean=7.9, lo=5.2, hi=11.4, **draws),
                "is_demo": Null(mean=3.4, lo=3, hi=3.8, **draws),
            },
            real_scores={"clip_demo": 28.4, "colour_demo": 0.98, "background_ok": 1.0, "is_demo": 3.4},
            samples_sha256=sha256_file(paths.samples / "manifest.json"),
            reference_sha256=sha256_file(paths.reference / "manifest.json"),
            targets={"clip_demo": 25.0}, absent={f"{step_name(0)}/is_demo": "it needs at least 2 images"},
            findings=("one prompt is longer than the text tower reads",),
            library_versions={"torch": "2.15.0"}, files={},
        ),
    )  # fmt: skip


def write_selection(root: Path, shape: Shape, verdict: str = "selected") -> None:
    best = shape.steps[-1]
    write_record(
        ProjectPaths(root).metrics / "selection.json",
        Selection(
            verdict=verdict, step=best, gates_failed={step_name(shape.steps[0]): "background_ok 0.49 < 0.90"},
            reason=f"step-{best} has the lowest Fréchet distance of the checkpoints that pass the gates: 12.9 against "
            "74.2 of the base model (difference -61.3, 95 % interval -68.7 to -53.9).",
            tied_steps=(shape.steps[-2],) if verdict != "selected" else (),
        ),
    )  # fmt: skip


def write_ends(root: Path, shape: Shape) -> None:
    paths = ProjectPaths(root)
    manifest = SamplesManifest.model_validate_json((paths.samples / "manifest.json").read_bytes())
    write_record(paths.confirmation / "manifest.json", manifest.model_copy(update={"samples": ()}))
    write_json(
        paths.metrics / "final.json",
        {
            "step": shape.steps[-1],
            "verdict": "selected",
            "n_images": 64,
            "n_prompts": 16,
            "n_real": 45,
            "fd_demo_base": 75.0,
            "fd_demo_selected": 13.8,
            "fd_demo_diff": -61.2,
            "fd_demo_diff_lo": -69.5,
            "fd_demo_diff_hi": -52.8,
            "fd_demo_null": 8.1,
            "fd_demo_null_lo": 5.5,
            "fd_demo_null_hi": 11.9,
            "clip_demo_base": 18.3,
            "clip_demo_selected": 27.1,
            "clip_demo_selected_lo": 26.0,
            "clip_demo_selected_hi": 28.2,
            "clip_demo_real": 28.1,
        },
    )
    write_record(
        paths.export / "manifest.json",
        ExportManifest(step=shape.steps[-1], base_model=BASE, rank=8, alpha=16, trigger="a shoe", files=()),
    )
