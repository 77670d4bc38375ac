"""Train the LoRA adapter and keep a checkpoint every `checkpoint_every` steps.

Reads data/latents and the base model; writes data/checkpoints (its manifest last), metrics/train.csv and the two curves
of the validation loss, which grow while training runs. An interrupted run goes on from the work store as if nothing had
happened. Previews and telemetry below .work are no results. Several processes (LOUPE_LAUNCH) share each step.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from loupe.params import Params, checkpoint_steps
from loupe.paths import ProjectPaths
from loupe.progress import track
from loupe.stage import report_counts, run_stage
from loupe.workstore import WorkStore

if TYPE_CHECKING:
    from loupe.diffusion.processes import Processes

CSV_INTERVAL_S = 2.0
INTERIM_INTERVAL_S = 10.0
ADAPTER_KNOBS = {"rank", "alpha", "target_modules", "use_dora", "use_rslora"}
REVIEW_KNOBS = {"validation_timesteps", "train_text_encoder", "preview_prompts"}
NOT_OF_PREVIEWS = {"val_captions"}


def train(params: Params, paths: ProjectPaths, store: WorkStore) -> None:
    """Run the stage; see the module's docstring."""
    from loupe.diffusion.processes import joined_processes
    from loupe.diffusion.trackers import require_trackers

    require_trackers(params.train.trackers)
    with joined_processes() as processes:
        _train(params, paths, store, processes)


def _train(params: Params, paths: ProjectPaths, store: WorkStore, processes: Processes) -> None:
    from loupe.diffusion import train_memory, train_run
    from loupe.diffusion.base_model import base_model_info, resolve_base_model
    from loupe.diffusion.batches import training_examples
    from loupe.diffusion.checkpoint_files import CheckpointOrigin, captions_sha256
    from loupe.diffusion.checkpoint_review import KeptCheckpoints, open_review
    from loupe.diffusion.device import choose_device, make_repeatable
    from loupe.diffusion.device_memory import told_when_full
    from loupe.diffusion.trackers import Trackers
    from loupe.diffusion.train_log import TrainLog, write_train_csv
    from loupe.diffusion.train_settings import TrainSettings
    from loupe.diffusion.train_store import TrainStore
    from loupe.diffusion.trainer_start import build_trainer

    base = resolve_base_model(params.model.base, params.model.revision, demo_folder=paths.demo)
    info = base_model_info(base, name=params.model.base, revision=params.model.revision)
    settings = TrainSettings.of(params.train.model_dump(), seed=params.seed, processes=processes.count)
    examples = training_examples(paths.latents, base=info, settings=settings)
    policy = choose_device()
    make_repeatable(policy)
    adapter = train_run.adapter_config(base, info, **params.train.model_dump(include=ADAPTER_KNOBS))
    options = {"settings": settings, "adapter": adapter, "policy": policy}
    memory = train_memory.plan_memory(
        base, examples, choice=params.train.gradient_checkpointing, previews=params.train.preview_prompts > 0,
        processes=processes, **options,
    )  # fmt: skip
    options |= {"gradient_checkpointing": memory.gradient_checkpointing}
    parts = train_run.run_parts(examples=examples, base_sha256=info.sha256, **options)
    origin = CheckpointOrigin(adapter, info, parts, settings.effective_batch_size, captions_sha256(paths.latents))
    states = TrainStore(store, parts)
    wanted = checkpoint_steps(params.train.max_steps, params.train.checkpoint_every)
    trackers = Trackers(params.train.trackers, folder=paths.trackers, run_name=states.key[:12], settings=parts["train"])
    with told_when_full(policy.device, memory.why_full), ExitStack() as stack:
        if processes.is_main:
            stack.enter_context(states.lock(waits=processes.count == 1))
        plan = train_run.plan_for_all(wanted, states, processes)
        review = open_review(
            base, info, policy=policy, trackers=trackers, **_reviewing(params, paths, store, processes)
        )
        if not processes.is_main:
            train_run.take_part(plan, states, base, info, examples, review=review.help, processes=processes, **options)
            return
        stack.enter_context(trackers)
        for note in (train_run.device_note(settings, policy), *memory.notes, train_run.starting_point(plan, states)):
            print(note, flush=True)
        kept = KeptCheckpoints(states, origin, review)
        kept.keep(step for step in wanted if step not in plan.missing)
        if plan.legs:
            trainer = build_trainer(base, info, examples, processes=processes, **options)
            log = TrainLog(
                train_csv=paths.metrics / "train.csv", telemetry_csv=paths.train_telemetry, device=policy.device,
                trackers=trackers, interval_s=CSV_INTERVAL_S, images_per_step=settings.effective_batch_size,
            )  # fmt: skip
            trained = train_run.run_legs(plan.legs, trainer, states, interim_interval_s=INTERIM_INTERVAL_S)
            reviewed = kept.follow(log.follow(trained, lambda: trainer.rows), steps=plan.missing)
            for _ in track(reviewed, total=plan.n_steps, what="train", unit="step", note=log.note):
                pass
        write_train_csv(paths.metrics / "train.csv", states.load(wanted[-1]).rows)
        kept.write_manifest()
    report_counts("train", computed=plan.n_steps, reused=wanted[-1] - plan.n_steps)


def _reviewing(params: Params, paths: ProjectPaths, store: WorkStore, processes: Processes) -> dict[str, Any]:
    """Return what validation and previews need to know.

    Previews are no output, so dvc.yaml does not have it depend on `generate`: another prompt must not run it again.
    """
    return {
        "seed": params.seed,
        "latents": paths.latents,
        "checkpoints": paths.checkpoints,
        "metrics": paths.metrics,
        "previews": paths.previews,
        "store": store,
        "processes": processes,
        **params.train.model_dump(include=REVIEW_KNOBS),
        **params.generate.model_dump(exclude=NOT_OF_PREVIEWS),
    }


if __name__ == "__main__":
    run_stage("train", __doc__, train, may_be_many=True)
