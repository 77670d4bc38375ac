"""The artefacts of a fixture run, training aside: parameters, dataset, pictures, scores, decision. Made-up numbers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML

from loupe.atomic_io import sha256_file, write_bytes, write_csv, write_json, write_record
from loupe.evaluation_records import EvaluationManifest, Null, RealScore, ReferenceManifest, Selection
from loupe.metric_specs import METRIC_SPECS, applicable_specs, checkpoint_columns
from loupe.metrics.tables import FINAL_COLUMNS
from loupe.paths import ProjectPaths, step_name
from loupe.records import DatasetManifest, ExportManifest, LatentsManifest, SampleRecord, SamplesManifest
from tests.run_shape import BASE, EXTRACTORS, NASTY, ROOT, Painter, Shape, draw_sample, prompts_of

SCORES = ("fd_demo", "clip_demo", "colour_demo", "background_ok", "is_demo")
"""The metrics that a fixture run has values of."""


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
        name: {"cmd": stage["cmd"], "params": {"params.yaml": {key: _param(params, key) for key in stage["params"]}}}
        for name, stage in stages.items()
    }
    YAML().dump({"schema": "2.0", "stages": content}, root / "dvc.lock")


def _param(params: dict, name: str) -> object:
    for part in name.split("."):
        params = params[part]
    return params


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
    write_record(folder / "manifest.json", samples_manifest(shape, samples))


def samples_manifest(shape: Shape, samples: Sequence[SampleRecord]) -> SamplesManifest:
    return SamplesManifest(
        base_model=BASE, checkpoints_fingerprint="c" * 64, steps=shape.all_steps, prompts=prompts_of(shape),
        seeds_per_prompt=shape.seeds, samples=tuple(samples), width_px=shape.size_px, height_px=shape.size_px,
        guidance_scale=4.0, num_inference_steps=20, negative_prompt="", sampler="DPMSolverMultistepScheduler",
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
    write_csv(paths.metrics / "checkpoints.csv", checkpoint_columns({key: METRIC_SPECS[key] for key in keys}), rows)
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
            real_scores={
                key: RealScore(value=value, n=45)
                for key, value in {"clip_demo": 28.4, "colour_demo": 0.98, "background_ok": 1.0, "is_demo": 3.4}.items()
            },
            samples_sha256=sha256_file(paths.samples / "manifest.json"),
            reference_sha256=sha256_file(paths.reference / "manifest.json"),
            targets={"clip_demo": 25.0}, unmeasured_targets={"fid": 30.0, "inception_score": 6.0},
            absent={f"{step_name(0)}/is_demo": "it needs at least 2 images"},
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


def write_ends(root: Path, shape: Shape, *, gates_failed: str = "") -> None:
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
            "gates_failed": gates_failed,
        },
    )
    of_pictures = {"base": 75.0, "selected": 13.8, "diff": -61.2, "diff_lo": -69.5, "diff_hi": -52.8}
    of_pictures |= {"null": 8.1, "null_lo": 5.5, "null_hi": 11.9}
    of_texts = {"base": 18.3, "selected": 27.1, "selected_lo": 26.0, "selected_hi": 28.2, "real": 28.1}
    rows = [{"score": "fd_demo", **of_pictures}, {"score": "clip_demo", **of_texts}]
    write_csv(paths.metrics / "final.csv", FINAL_COLUMNS, rows)
    write_record(
        paths.export / "manifest.json",
        ExportManifest(step=shape.steps[-1], base_model=BASE, rank=8, alpha=16, trigger="a shoe", files=()),
    )
