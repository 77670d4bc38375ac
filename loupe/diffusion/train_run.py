"""A training run over the work store: what identifies it, which of its steps are still to be computed, computing them.

A checkpoint that is not stored is computed again from the nearest earlier state, which gives the same bytes. The caller
owns the progress bar and writes the checkpoints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from loupe.diffusion.adapter import AdapterConfig
from loupe.diffusion.device import DevicePolicy, device_identity
from loupe.diffusion.latent_files import Examples
from loupe.diffusion.optimizers import optimizer_libraries
from loupe.diffusion.processes import Processes
from loupe.diffusion.target_modules import resolve_target_modules, unet_skeleton
from loupe.diffusion.tensor_files import tensors_sha256
from loupe.diffusion.text_adapter import TEXT_LAYERS
from loupe.diffusion.train_settings import TrainSettings
from loupe.diffusion.train_store import TrainStore
from loupe.diffusion.trainer_start import build_trainer
from loupe.diffusion.training import Trainer, TrainingState
from loupe.errors import PipelineError
from loupe.records import BaseModelInfo, TrainRow
from loupe.workstore import library_versions, source_fingerprint

LIBRARIES = ("torch", "diffusers", "peft")
_INTERIM_PAUSE = 50
"""How many times as long as the last state took to store no interim one is: they take at most 2 % of the time."""
_DECIDING_CODE = (
    "adapter.py",
    "batches.py",
    "cpu_shares.py",
    "cuda_graph.py",
    "device.py",
    "dora.py",
    "ema.py",
    "forward_pass.py",
    "fused_lora.py",
    "latent_files.py",
    "model_loading.py",
    "noise.py",
    "optimizers.py",
    "text_adapter.py",
    "train_settings.py",
    "trainer_start.py",
    "training.py",
    "unet_forward.py",
)


@dataclass(frozen=True, slots=True)
class Leg:
    """A stretch of steps to compute: start + 1 to stop, going on from the state at start (0: from nothing)."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What of a run is still to be computed."""

    legs: tuple[Leg, ...]
    resumed_from: int | None
    """Step of the stored state that the run goes on from; None when it starts from nothing or computes nothing."""

    @property
    def n_steps(self) -> int:
        """Optimizer steps to compute."""
        return sum(leg.stop - leg.start for leg in self.legs)

    @property
    def missing(self) -> frozenset[int]:
        """The wanted steps that are not stored yet."""
        return frozenset(leg.stop for leg in self.legs)


def plan_run(wanted: Sequence[int], stored: Collection[int]) -> RunPlan:
    """Return the legs that make every step of `wanted` (ascending) stored, each from the nearest earlier state."""
    available = {0, *stored}
    legs = []
    for stop in wanted:
        if stop not in available:
            legs.append(Leg(max(step for step in available if step < stop), stop))
            available.add(stop)
    return RunPlan(tuple(legs), (legs[0].start or None) if legs else None)


def plan_for_all(wanted: Sequence[int], store: TrainStore, processes: Processes) -> RunPlan:
    """Return `plan_run` of what the store holds, as the main process finds it; call it there with the store locked.

    A state that is stored and wanted stays from then on.

    Raises PipelineError when the processes would not train the same.
    """
    processes.require_same("What decides the weights", store.key)
    plan = RunPlan((), None)
    if processes.is_main:
        plan = plan_run(wanted, store.usable_steps())
        store.keep(wanted)
    numbers = processes.numbers_from_main([number for leg in plan.legs for number in (leg.start, leg.stop)])
    agreed = tuple(map(Leg, numbers[::2], numbers[1::2]))
    return RunPlan(agreed, (agreed[0].start or None) if agreed else None)


def starting_point(plan: RunPlan, store: TrainStore) -> str:
    """Return a sentence on where a run starts and, if anew beside an earlier run, what differs from that one."""
    if not plan.legs:
        return "train: every checkpoint comes from the work store"
    if plan.resumed_from is not None:
        return f"train: resumed from step {plan.resumed_from}"
    differences = store.differences()
    if not differences:
        return "train: starts at step 0"
    return "train: starts at step 0, because this decides the weights and has changed: " + "; ".join(differences)


def run_legs(
    legs: Sequence[Leg],
    trainer: Trainer,
    store: TrainStore,
    *,
    interim_interval_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[TrainRow]:
    """Compute the legs, storing the state at each one's end and, as interim states, every `interim_interval_s`.

    An interval of 0 is after every step. Else interim states come more rarely where storing takes long (a large
    adapter); a kill then costs what was computed since the last state, never more than one interval of checkpoints.
    A row is yielded once the state that holds it was stored, if one was due. Of several processes the main one stores.
    Raises PipelineError when they have come to hold different weights, or one does not see the store of the others.
    """
    next_interim = clock() + interim_interval_s
    processes = trainer.processes
    for leg in legs:
        if trainer.step != leg.start:
            trainer.restore(_load_start(store, leg.start))
        for row in trainer.run(leg.stop):
            ends = row.step == leg.stop
            if ends and processes.count > 1:
                processes.require_same(f"The adapter of step {row.step}", tensors_sha256(trainer.models.state()))
            if processes.is_main and (ends or clock() >= next_interim):
                began = clock()
                store.save(trainer.state(), interim=not ends)
                saved = clock()
                pause = max(interim_interval_s, _INTERIM_PAUSE * (saved - began)) if interim_interval_s else 0.0
                next_interim = saved + pause
            yield row


def take_part(
    plan: RunPlan,
    store: TrainStore,
    base: Path,
    info: BaseModelInfo,
    examples: Examples,
    *,
    review: Callable[[], None],
    **options: Any,
) -> None:
    """Compute the plan's legs with the main process, which alone writes; `options` are those of build_trainer.

    `review` is called where the main process reviews checkpoints: those that are stored, then each of the plan's.
    """
    review()
    if plan.legs:
        trainer = build_trainer(base, info, examples, **options)
        for row in run_legs(plan.legs, trainer, store, interim_interval_s=inf):
            if row.step in plan.missing:
                review()


def device_note(settings: TrainSettings, policy: DevicePolicy) -> str:
    """Return a sentence on what trains, and on the effective batch size where several processes make it up."""
    note = f"train: {policy.reason}"
    if settings.processes == 1:
        return note
    return (
        f"{note}; effective batch size {settings.effective_batch_size} = batch_size {settings.batch_size} x "
        f"gradient_accumulation_steps {settings.gradient_accumulation_steps} x {settings.processes} processes"
    )


def _load_start(store: TrainStore, step: int) -> TrainingState:
    try:
        return store.load(step)
    except KeyError:
        raise PipelineError(
            f"The state of step {step} is not in the work store {store.store.root}, where the main process has found "
            f"it. All processes must see the same project folder: put it on a disk that the machines share."
        ) from None


def adapter_config(
    base: Path,
    info: BaseModelInfo,
    *,
    target_modules: str | Sequence[str],
    rank: int,
    alpha: float,
    use_dora: bool,
    use_rslora: bool,
) -> AdapterConfig:
    """Return the adapter for the base model in `base`, its target modules resolved from a preset or list of names."""
    names = resolve_target_modules(unet_skeleton(base), target_modules)
    return AdapterConfig(rank, alpha, names, info.name, use_dora=use_dora, use_rslora=use_rslora)


def run_parts(
    settings: TrainSettings,
    adapter: AdapterConfig,
    *,
    examples: Examples,
    base_sha256: str,
    policy: DevicePolicy,
    gradient_checkpointing: bool = False,
) -> dict[str, Any]:
    """Return everything that decides the weights at any step, for the run's fingerprint.

    With a constant learning rate max_steps decides nothing, so such a run can be prolonged. Gradient checkpointing
    computes the same numbers again, so it may change between an interruption and going on; but where the UNet is
    compiled it gives another graph, which rounds otherwise. Raises PipelineError when the optimizer cannot be had here.
    """
    libraries = (*LIBRARIES, *optimizer_libraries(settings.optimizer, device=policy.device))
    numbers = asdict(settings)
    of_text = {}
    if settings.train_text_encoder:
        libraries += ("transformers",)
        of_text = {"text_encoder": list(TEXT_LAYERS)}
    else:  # they decide nothing then, so a run without has the key that it had before there was such a thing
        del numbers["train_text_encoder"], numbers["text_encoder_learning_rate"]
    if settings.lr_scheduler == "constant":
        del numbers["max_steps"]
    if settings.compile:
        numbers["gradient_checkpointing"] = gradient_checkpointing
    numbers["adam_betas"] = list(settings.adam_betas)
    here = Path(__file__)
    return {
        "train": numbers,
        "adapter": {
            "rank": adapter.rank,
            "alpha": float(adapter.alpha),
            "target_modules": sorted(adapter.target_modules),
            "use_dora": adapter.use_dora,
            "use_rslora": adapter.use_rslora,
            **of_text,
        },
        "examples": examples.sha256(),
        "base_model": base_sha256,
        "device": device_identity(policy),
        "dtype": policy.dtype_name,
        "versions": library_versions(*libraries),
        "code": source_fingerprint(*(here.with_name(name) for name in _DECIDING_CODE)),
    }
