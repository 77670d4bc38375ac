"""All pictures of a run: every prompt and seed, for the base model and every checkpoint, each drawn only once ever.

Pictures are kept in the work store under everything that decides them, so a further prompt or checkpoint draws only its
own. It chooses no prompts, judges no picture beyond "usable or not", and reads no image of the dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import torch

from loupe.atomic_io import write_record
from loupe.diffusion.adapter import load_adapter, set_adapter_enabled
from loupe.diffusion.device import DevicePolicy, choose_device, make_repeatable
from loupe.diffusion.device_memory import DeviceFull, is_out_of_memory, release_memory
from loupe.diffusion.model_loading import load_noise_scheduler, load_tokenizer, load_unet, load_vae
from loupe.diffusion.picture_rows import measure_room, takes_fewer
from loupe.diffusion.picture_store import PictureOutcome, keep, reuse, stored_outcome
from loupe.diffusion.processes import ALONE, Processes
from loupe.diffusion.prompts import check_prompt_lengths
from loupe.diffusion.sample_plan import AdapterSource, PlannedSample, plan_samples
from loupe.diffusion.sampling import (
    SAMPLER,
    DrawingBatch,
    DrawingModel,
    Picture,
    PictureRequest,
    Purpose,
    SamplingSettings,
    pictures_at_once,
    sample_batches,
)
from loupe.diffusion.text_vectors import vectors_by_step
from loupe.diffusion.unet_forward import UNetForward
from loupe.errors import PipelineError
from loupe.progress import say, track
from loupe.records import BASE_STEP, PromptRecord, SampleRecord, SamplesManifest
from loupe.workstore import WorkStore


@dataclass(frozen=True, slots=True)
class RenderedSamples:
    """The manifest that was written, and how much of the work was new."""

    manifest: SamplesManifest
    n_computed: int
    n_reused: int


@dataclass(frozen=True, slots=True)
class _Work:
    """What stays the same, however many pictures go through the UNet together."""

    source: AdapterSource
    settings: SamplingSettings
    policy: DevicePolicy
    output: Path
    store: WorkStore
    processes: Processes
    named: str

    def say(self, text: str) -> None:
        if self.processes.is_main:
            say(f"{self.named}: {text}")


def render_samples(
    source: AdapterSource,
    *,
    steps: Sequence[int],
    prompts: Sequence[PromptRecord],
    seeds_per_prompt: int,
    purpose: Purpose,
    root_seed: int,
    settings: SamplingSettings,
    batch_size: int,
    output: Path,
    store: WorkStore,
    processes: Processes = ALONE,
    what: str | None = None,
) -> RenderedSamples:
    """Draw every (prompt, seed, step) into `output`, write `output`/manifest.json last.

    `steps` are checkpoints of `source` and 0 for the base model without adapter. `purpose` keeps the seeds of
    `generate` and `confirm` apart. `output` must be empty; pictures appear there as they are drawn, all steps of the
    first prompts first. What the work store has is copied; when it has everything, no model is loaded. Several
    processes share the drawing out, and meet again in the work store; the main one writes the manifest. `what` names
    the work where its progress is shown, if not `purpose`. Raises PipelineError when an adapter is not the one of its
    manifest, the base model is not the one the adapters were trained on, a fixed prompt is too long for the text
    encoder, the device's memory does not hold even one picture (DeviceFull), or a process does not see what the others
    have drawn.
    """
    policy = choose_device()
    plan = partial(
        plan_samples, source, steps=steps, prompts=prompts, seeds_per_prompt=seeds_per_prompt, purpose=purpose,
        root_seed=root_seed, settings=settings, policy=policy,
    )  # fmt: skip
    work = _Work(source, settings, policy, output, store, processes, what or purpose)
    planned, outcomes, n_missing = _draw_all(work, plan, pictures_at_once(policy, batch_size))
    manifest = SamplesManifest(
        base_model=source.base_model,
        checkpoints_fingerprint=source.checkpoints.fingerprint,
        steps=tuple(sorted(set(steps))),
        prompts=tuple(prompts),
        seeds_per_prompt=seeds_per_prompt,
        samples=tuple(_record(item, outcomes[item]) for item in planned),
        sampler=SAMPLER,
        **asdict(settings),
    )
    if processes.is_main:
        write_record(output / "manifest.json", manifest)
    return RenderedSamples(manifest, n_computed=n_missing, n_reused=len(planned) - n_missing)


def _record(item: PlannedSample, outcome: PictureOutcome) -> SampleRecord:
    return SampleRecord(
        prompt_id=item.prompt.prompt_id,
        seed_index=item.seed_index,
        seed=item.seed,
        step=item.step,
        file=None if outcome.sha256 is None else item.file,
        sha256=outcome.sha256,
        invalid_reason=outcome.invalid_reason,
    )


def _draw_all(
    work: _Work, plan: Callable[..., list[PlannedSample]], asked_rows: int
) -> tuple[list[PlannedSample], dict[PlannedSample, PictureOutcome], int]:
    """Return what was planned, what became of it, and how many pictures had to be drawn.

    All pictures of a run go through the UNet in batches of one size, `asked_rows` or less where a GPU's memory holds
    less, so that checkpoints differ by their weights alone. Raises DeviceFull where it does not hold even one.
    """
    n_rows, is_measured = asked_rows, not takes_fewer(work.policy)
    while True:
        planned = plan(n_rows=n_rows)
        outcomes, missing = _reuse_all(work, planned)
        if missing and not is_measured:
            is_measured = True
            room = measure_room(work.source.base_folder, settings=work.settings, policy=work.policy)
            fitting = work.processes.least(room.pictures(n_rows))
            if fitting < n_rows:
                work.say(f"{fitting} pictures at a time, not {n_rows}: {room.why_fewer(n_rows)}.")
                n_rows = fitting
                continue
        drawn = _draw_share(work, missing, n_rows)
        if work.processes.least(int(drawn is not None)):
            outcomes.update(drawn or {})
            missing_here = [item for item in planned if item not in outcomes]
            outcomes.update((item, _drawn_elsewhere(work.store, item)) for item in missing_here)
            return planned, outcomes, len(missing)
        if n_rows == 1:
            room = measure_room(work.source.base_folder, settings=work.settings, policy=work.policy)
            raise DeviceFull(room.why_none())
        work.say(f"{n_rows} pictures at a time filled the device's memory; {n_rows // 2} from now on.")
        release_memory(work.policy.device)
        n_rows //= 2


def _draw_share(
    work: _Work, missing: Sequence[PlannedSample], n_rows: int
) -> dict[PlannedSample, PictureOutcome] | None:
    """Draw and keep this process's share of `missing`; None where the device's memory did not hold `n_rows` pictures.

    The model is local to it: with the exception go its weights and recordings, whose memory the next attempt needs.
    """
    mine = work.processes.share(_groups(missing, n_rows))
    if not mine:
        return {}
    _check_prompts(work.source.base_folder, missing, work.settings)
    drawn = _draw(mine, work.source, settings=work.settings, policy=work.policy, n_rows=n_rows)
    if work.processes.is_main:
        count = work.processes.count
        named = work.named + ("" if count == 1 else f", process 1 of {count}")
        drawn = track(drawn, total=sum(map(len, mine)), what=named)
    try:
        return dict(keep(drawn, work.store, work.output))
    except RuntimeError as error:
        if not takes_fewer(work.policy) or not is_out_of_memory(error):
            raise
        return None


def _reuse_all(
    work: _Work, planned: Sequence[PlannedSample]
) -> tuple[dict[PlannedSample, PictureOutcome], list[PlannedSample]]:
    """Return what could be copied from the work store, and what is missing, which is the same in every process.

    Only the main process looks: the others would find what their peers have already begun to draw.
    """
    processes = work.processes
    processes.require_same("What decides the pictures", "".join(item.key for item in planned))
    outcomes = {}
    if processes.is_main:
        outcomes = {item: outcome for item in planned if (outcome := reuse(work.store, item, work.output))}
    is_missing = torch.tensor([item not in outcomes for item in planned])
    processes.from_main(is_missing)
    return outcomes, [item for item, missing in zip(planned, is_missing.tolist(), strict=True) if missing]


def _drawn_elsewhere(store: WorkStore, item: PlannedSample) -> PictureOutcome:
    outcome = stored_outcome(store, item)
    if outcome is None:
        raise PipelineError(
            f"{item.file} was drawn by another process, but is not in the work store {store.root}. All processes must "
            f"see the same project folder: put it on a disk that the machines share."
        )
    return outcome


def _groups(missing: Sequence[PlannedSample], size: int) -> list[list[PlannedSample]]:
    """Return what goes through the UNet together: `size` pictures of one step, in the order of `missing`.

    Swapping the adapter's weights costs milliseconds, so a reviewer of a running stage sees whole rows early; and where
    single pictures are there already (previews of training), the groups are full all the same.
    """
    full = []
    waiting: dict[int, list[PlannedSample]] = {}
    for item in missing:
        group = waiting.setdefault(item.step, [])
        group.append(item)
        if len(group) == size:
            full.append(waiting.pop(item.step))
    return [*full, *(group for _, group in sorted(waiting.items()))]


def _draw(
    groups: Sequence[Sequence[PlannedSample]],
    source: AdapterSource,
    *,
    settings: SamplingSettings,
    policy: DevicePolicy,
    n_rows: int,
) -> Iterator[tuple[PlannedSample, Picture]]:
    """Yield the pictures of every group in turn."""
    make_repeatable(policy)
    texts: dict[int, list[str]] = {}
    for item in chain.from_iterable(groups):
        texts.setdefault(item.step, [settings.negative_prompt]).append(item.prompt.text)
    vectors = vectors_by_step(source, texts, policy=policy)
    model = load_drawing_model(source.base_folder, policy=policy)

    def batches() -> Iterator[DrawingBatch]:
        for items in groups:
            step = items[0].step
            if step == BASE_STEP:
                set_adapter_enabled(model.unet, False)
            else:
                load_adapter(model.unet, source.adapter_folder(step))
            requests = [PictureRequest(item.prompt.text, item.seed) for item in items]
            yield DrawingBatch(requests, vectors[step], n_rows=n_rows)

    for items, pictures in zip(groups, sample_batches(model, batches(), settings=settings), strict=True):
        yield from zip(items, pictures, strict=True)


def _check_prompts(base_folder: Path, missing: Sequence[PlannedSample], settings: SamplingSettings) -> None:
    prompts = list({item.prompt.prompt_id: item.prompt for item in missing}.values())
    check_prompt_lengths(load_tokenizer(base_folder), prompts, negative_prompt=settings.negative_prompt)


def load_drawing_model(base_folder: Path, *, policy: DevicePolicy) -> DrawingModel:
    """Return the parts of the base model that draw, loaded."""
    unet = load_unet(base_folder, device=policy.device, dtype=policy.dtype)
    return DrawingModel(
        unet=unet,
        vae=load_vae(base_folder, device=policy.device, dtype=torch.float32),
        noise_scheduler=load_noise_scheduler(base_folder),
        policy=policy,
        forward=UNetForward(unet, policy=policy, recorded=True),
    )
