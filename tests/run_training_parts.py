"""What a training leaves on disk for a fixture run: checkpoints, curves, telemetry, previews. Made-up numbers."""

from __future__ import annotations

import hashlib
from pathlib import Path

from loupe.atomic_io import write_bytes, write_csv, write_record
from loupe.paths import ProjectPaths, step_name
from loupe.records import CheckpointInfo, CheckpointsManifest, SampleRecord, SamplesManifest, TrainRow
from loupe.train_records import TelemetryRow, ValidationRow, ValidationTimestepRow
from tests.run_shape import BASE, Painter, Shape, draw_sample, paint_shoe, prompts_of


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


def checkpoints_of(samples: SamplesManifest) -> CheckpointsManifest:
    """Return a list of checkpoints that these samples could have been drawn with."""
    infos = tuple(
        CheckpointInfo(
            step=step, folder=step_name(step), sha256="0" * 64, rank=1, alpha=1.0, target_modules=("to_q",),
            train_loss=0.1,
        )
        for step in samples.steps
        if step
    )  # fmt: skip
    return CheckpointsManifest(
        base_model=samples.base_model, fingerprint=samples.checkpoints_fingerprint, checkpoints=infos,
        effective_batch_size=1, device="cpu", dtype="float32", library_versions={},
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
