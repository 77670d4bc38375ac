"""Train the LoRA adapter and keep a checkpoint every `checkpoint_every` steps.

Reads data/latents and the base model's UNet; writes data/checkpoints (its manifest last) and metrics/train.csv, which
grows while training runs. An interrupted run goes on from the work store as if nothing had happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.atomic_io import empty_folder, write_csv, write_record
from loupe.params import Params, checkpoint_steps
from loupe.paths import ProjectPaths
from loupe.progress import track
from loupe.records import CheckpointsManifest, TrainRow
from loupe.stage import report_counts, run_stage
from loupe.workstore import WorkStore

if TYPE_CHECKING:
    from loupe.diffusion.training import TrainSettings

CSV_INTERVAL_S = 2.0
INTERIM_INTERVAL_S = 10.0


def train(params: Params, paths: ProjectPaths, store: WorkStore) -> None:
    """Run the stage; see the module's docstring."""
    from loupe.diffusion import train_run
    from loupe.diffusion.adapter import AdapterConfig
    from loupe.diffusion.base_model import base_model_info, resolve_base_model
    from loupe.diffusion.checkpoint_files import write_checkpoint
    from loupe.diffusion.device import choose_device, make_repeatable
    from loupe.diffusion.latent_files import read_examples
    from loupe.diffusion.train_store import TrainStore

    base = resolve_base_model(params.model.base, params.model.revision, demo_folder=paths.demo)
    info = base_model_info(base, name=params.model.base, revision=params.model.revision)
    examples = read_examples(paths.latents, "train", base=info)
    policy = choose_device()
    make_repeatable(policy)
    print(f"train: {policy.reason}", flush=True)
    settings = _settings(params)
    adapter = AdapterConfig(params.train.rank, params.train.alpha, params.train.target_modules, info.name)
    parts = train_run.run_parts(settings, adapter, examples=examples, base_sha256=info.sha256, policy=policy)
    states = TrainStore(store, parts)
    wanted = checkpoint_steps(params.train.max_steps, params.train.checkpoint_every)
    train_csv = paths.metrics / "train.csv"

    with states.lock():
        plan = train_run.plan_run(wanted, states.usable_steps())
        print(train_run.starting_point(plan, states), flush=True)
        folder = empty_folder(paths.checkpoints)
        stored = [step for step in wanted if step not in plan.missing]
        kept = {step: write_checkpoint(folder, states.load(step), adapter) for step in stored}
        if plan.legs:
            trainer = train_run.build_trainer(base, info, examples, settings=settings, adapter=adapter, policy=policy)
            rows = train_run.run_legs(plan.legs, trainer, states, interim_interval_s=INTERIM_INTERVAL_S)
            flush = _csv_writer(train_csv)
            for row in track(rows, total=plan.n_steps, what="train", unit="step", note=_note(settings)):
                flush(trainer.rows)
                if row.step in plan.missing:
                    kept[row.step] = write_checkpoint(folder, states.load(row.step), adapter)
        last = states.load(wanted[-1])

    _write_rows(train_csv, last.rows)
    manifest = CheckpointsManifest(
        base_model=info,
        fingerprint=states.key,
        checkpoints=tuple(kept[step] for step in wanted),
        effective_batch_size=settings.effective_batch_size,
        device=parts["device"],
        dtype=policy.dtype_name,
        library_versions=parts["versions"],
    )
    write_record(folder / "manifest.json", manifest)
    report_counts("train", computed=plan.n_steps, reused=wanted[-1] - plan.n_steps)


def _settings(params: Params) -> TrainSettings:
    from loupe.diffusion.training import TrainSettings

    numbers = params.train.model_dump(
        exclude={"checkpoint_every", "rank", "alpha", "target_modules", "adam_beta1", "adam_beta2"}
    )
    return TrainSettings(seed=params.seed, adam_betas=(params.train.adam_beta1, params.train.adam_beta2), **numbers)


def _note(settings: TrainSettings) -> Callable[[TrainRow], str]:
    started, done = time.monotonic(), 0

    def note(row: TrainRow) -> str:
        nonlocal done
        done += settings.effective_batch_size
        rate = done / (time.monotonic() - started)
        return f"step {row.step}, loss {row.loss_smoothed:.4f}, {rate:.3g} images/s"

    return note


def _csv_writer(target: Path) -> Callable[[list[TrainRow]], None]:
    last_written = -CSV_INTERVAL_S

    def flush(rows: list[TrainRow]) -> None:
        nonlocal last_written
        if time.monotonic() - last_written >= CSV_INTERVAL_S:
            _write_rows(target, rows)
            last_written = time.monotonic()

    return flush


def _write_rows(target: Path, rows: list[TrainRow] | tuple[TrainRow, ...]) -> None:
    write_csv(target, list(TrainRow.model_fields), (row.model_dump() for row in rows))


if __name__ == "__main__":
    run_stage("train", __doc__, train)
