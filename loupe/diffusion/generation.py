"""All pictures of a run: every prompt and seed, for the base model and every checkpoint, each drawn only once ever.

Pictures are kept in the work store under everything that decides them, so a further prompt or checkpoint draws only its
own. It chooses no prompts, judges no picture beyond "usable or not", and reads no image of the dataset.
"""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from loupe.atomic_io import sha256_file, write_bytes, write_record
from loupe.diffusion.adapter import load_adapter, set_adapter_enabled
from loupe.diffusion.base_model import load_noise_scheduler, load_tokenizer, load_unet, load_vae
from loupe.diffusion.device import DevicePolicy, choose_device, make_repeatable
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
from loupe.progress import track
from loupe.records import BASE_STEP, PromptRecord, SampleRecord, SamplesManifest
from loupe.workstore import WorkStore, copy_file

STORE_KIND = "samples"
_MAX_UNWRITTEN = 32


@dataclass(frozen=True, slots=True)
class RenderedSamples:
    """The manifest that was written, and how much of the work was new."""

    manifest: SamplesManifest
    n_computed: int
    n_reused: int


class _Outcome(BaseModel):
    """What the work store keeps beside a picture; written after it, so it vouches for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str | None
    """Of the PNG's bytes; None when there is no picture."""
    invalid_reason: str | None


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
    encoder, or a process does not see what the others have drawn.
    """
    policy = choose_device()
    planned = plan_samples(
        source, steps=steps, prompts=prompts, seeds_per_prompt=seeds_per_prompt, purpose=purpose, root_seed=root_seed,
        settings=settings, policy=policy,
    )  # fmt: skip
    outcomes, missing = _reuse_all(planned, store, output, processes)
    groups = _groups(missing, pictures_at_once(policy, batch_size))
    mine = processes.share(groups)
    if mine:
        _check_prompts(source.base_folder, missing, settings)
        drawn = _draw(mine, source, settings=settings, policy=policy, batch_size=batch_size)
        if processes.is_main:
            named = (what or purpose) + ("" if processes.count == 1 else f", process 1 of {processes.count}")
            drawn = track(drawn, total=sum(map(len, mine)), what=named)
        outcomes.update(_keep(drawn, store, output))
    processes.wait()
    outcomes = {item: outcomes.get(item) or _drawn_elsewhere(store, item) for item in planned}
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
    return RenderedSamples(manifest, n_computed=len(missing), n_reused=len(planned) - len(missing))


def _record(item: PlannedSample, outcome: _Outcome) -> SampleRecord:
    return SampleRecord(
        prompt_id=item.prompt.prompt_id,
        seed_index=item.seed_index,
        seed=item.seed,
        step=item.step,
        file=None if outcome.sha256 is None else item.file,
        sha256=outcome.sha256,
        invalid_reason=outcome.invalid_reason,
    )


def _reuse_all(
    planned: Sequence[PlannedSample], store: WorkStore, output: Path, processes: Processes
) -> tuple[dict[PlannedSample, _Outcome], list[PlannedSample]]:
    """Return what could be copied from the work store, and what is missing, which is the same in every process.

    Only the main process looks: the others would find what their peers have already begun to draw.
    """
    processes.require_same("What decides the pictures", "".join(item.key for item in planned))
    outcomes = {}
    if processes.is_main:
        outcomes = {item: outcome for item in planned if (outcome := _reuse(store, item, output))}
    is_missing = torch.tensor([item not in outcomes for item in planned])
    processes.from_main(is_missing)
    return outcomes, [item for item, missing in zip(planned, is_missing.tolist(), strict=True) if missing]


def _drawn_elsewhere(store: WorkStore, item: PlannedSample) -> _Outcome:
    outcome = _stored_outcome(store, item)
    if outcome is None:
        raise PipelineError(
            f"{item.file} was drawn by another process, but is not in the work store {store.root}. All processes must "
            f"see the same project folder: put it on a disk that the machines share."
        )
    return outcome


def _stored_outcome(store: WorkStore, item: PlannedSample) -> _Outcome | None:
    entry = store.get(STORE_KIND, item.key, ".json")
    if entry is None:
        return None
    try:
        return _Outcome.model_validate_json(entry.read_bytes())
    except ValidationError:
        return None


def _reuse(store: WorkStore, item: PlannedSample, output: Path) -> _Outcome | None:
    """Copy a picture from the work store to `output`; None when it is not there whole."""
    outcome = _stored_outcome(store, item)
    if outcome is None or outcome.sha256 is None:
        return outcome
    picture = store.get(STORE_KIND, item.key, ".png")
    if picture is None or sha256_file(picture) != outcome.sha256:
        return None
    copy_file(picture, output / item.file)
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
    batch_size: int,
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
            yield DrawingBatch(requests, vectors[step], n_rows=pictures_at_once(policy, batch_size))

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


def _keep(
    drawn: Iterable[tuple[PlannedSample, Picture]], store: WorkStore, output: Path
) -> Iterator[tuple[PlannedSample, _Outcome]]:
    """Write pictures in a second thread while the next ones are denoised; a failed write stops the drawing soon."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="write-picture") as writer:
        waiting: deque[tuple[PlannedSample, Future[_Outcome]]] = deque()
        for item, picture in drawn:
            waiting.append((item, writer.submit(_write_picture, item, picture, store, output)))
            while waiting and (len(waiting) > _MAX_UNWRITTEN or waiting[0][1].done()):
                done, outcome = waiting.popleft()
                yield done, outcome.result()
        for done, outcome in waiting:
            yield done, outcome.result()


def _write_picture(item: PlannedSample, picture: Picture, store: WorkStore, output: Path) -> _Outcome:
    outcome = _Outcome(sha256=None, invalid_reason=picture.invalid_reason)
    if picture.pixels is not None:
        content = _png(picture.pixels)
        outcome = outcome.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
        write_bytes(store.path(STORE_KIND, item.key, ".png"), content)
        write_bytes(output / item.file, content)
    write_record(store.path(STORE_KIND, item.key, ".json"), outcome)
    return outcome


def _png(pixels_HWC: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "PNG")
    return buffer.getvalue()
