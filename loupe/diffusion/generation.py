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
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from loupe.atomic_io import sha256_file, write_bytes, write_record
from loupe.diffusion.adapter import load_adapter, set_adapter_enabled
from loupe.diffusion.base_model import load_noise_scheduler, load_text_encoder, load_tokenizer, load_unet, load_vae
from loupe.diffusion.device import DevicePolicy, choose_device, make_repeatable
from loupe.diffusion.prompts import check_prompt_lengths
from loupe.diffusion.sample_plan import AdapterSource, PlannedSample, plan_samples
from loupe.diffusion.sampling import (
    SAMPLER,
    DrawingModel,
    Picture,
    PictureRequest,
    Purpose,
    SamplingSettings,
    embed_texts,
    pictures_at_once,
    sample_pictures,
)
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
) -> RenderedSamples:
    """Draw every (prompt, seed, step) into `output`, write `output`/manifest.json last.

    `steps` are checkpoints of `source` and 0 for the base model without adapter. `purpose` keeps the seeds of
    `generate` and `confirm` apart. `output` must be empty; pictures appear there as they are drawn, all steps of the
    first prompts first. What the work store has is copied; when it has everything, no model is loaded. Raises
    PipelineError when an adapter is not the one of its manifest, the base model is not the one the adapters were
    trained on, or a fixed prompt is too long for the text encoder.
    """
    policy = choose_device()
    planned = plan_samples(
        source, steps=steps, prompts=prompts, seeds_per_prompt=seeds_per_prompt, purpose=purpose, root_seed=root_seed,
        settings=settings, policy=policy,
    )  # fmt: skip
    outcomes = {item: outcome for item in planned if (outcome := _reuse(store, item, output))}
    missing = [item for item in planned if item not in outcomes]
    if missing:
        drawn = _draw(missing, source, settings=settings, policy=policy, batch_size=batch_size)
        outcomes.update(_keep(track(drawn, total=len(missing), what=purpose), store, output))
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


def _reuse(store: WorkStore, item: PlannedSample, output: Path) -> _Outcome | None:
    """Copy a picture from the work store to `output`; None when it is not there whole."""
    entry = store.get(STORE_KIND, item.key, ".json")
    if entry is None:
        return None
    try:
        outcome = _Outcome.model_validate_json(entry.read_bytes())
    except ValidationError:
        return None
    if outcome.sha256 is None:
        return outcome
    picture = store.get(STORE_KIND, item.key, ".png")
    if picture is None or sha256_file(picture) != outcome.sha256:
        return None
    copy_file(picture, output / item.file)
    return outcome


def _draw(
    missing: Sequence[PlannedSample],
    source: AdapterSource,
    *,
    settings: SamplingSettings,
    policy: DevicePolicy,
    batch_size: int,
) -> Iterator[tuple[PlannedSample, Picture]]:
    """Yield every missing picture: a group of prompts and seeds at a time, through all its steps.

    Swapping the adapter's weights costs milliseconds, so a reviewer of a running stage sees whole rows early.
    """
    make_repeatable(policy)
    model, embeddings = _load(source.base_folder, missing, settings=settings, policy=policy)
    folders = {info.step: info.folder for info in source.checkpoints.checkpoints}
    rows: dict[tuple[str, int], dict[int, PlannedSample]] = {}
    for item in missing:
        rows.setdefault((item.prompt.prompt_id, item.seed_index), {})[item.step] = item
    steps = sorted({item.step for item in missing})
    for group in _groups(list(rows.values()), pictures_at_once(policy, batch_size)):
        for step in steps:
            items = [row[step] for row in group if step in row]
            if not items:
                continue
            if step == BASE_STEP:
                set_adapter_enabled(model.unet, False)
            else:
                load_adapter(model.unet, source.checkpoints_folder / folders[step])
            requests = [PictureRequest(item.prompt.text, item.seed) for item in items]
            pictures = sample_pictures(model, requests, embeddings=embeddings, settings=settings, batch_size=batch_size)
            yield from zip(items, pictures, strict=True)


def _groups(rows: Sequence[dict[int, PlannedSample]], size: int) -> Iterator[Sequence[dict[int, PlannedSample]]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _load(
    base_folder: Path, missing: Sequence[PlannedSample], *, settings: SamplingSettings, policy: DevicePolicy
) -> tuple[DrawingModel, dict[str, torch.Tensor]]:
    """Return the loaded base model and the vectors of every prompt; the tokenizer comes first, to refuse early."""
    tokenizer = load_tokenizer(base_folder)
    prompts = list({item.prompt.prompt_id: item.prompt for item in missing}.values())
    check_prompt_lengths(tokenizer, prompts, negative_prompt=settings.negative_prompt)
    text_encoder = load_text_encoder(base_folder, device=policy.device, dtype=torch.float32)
    texts = [settings.negative_prompt, *(prompt.text for prompt in prompts)]
    embeddings = embed_texts(texts, tokenizer=tokenizer, text_encoder=text_encoder)
    model = DrawingModel(
        unet=load_unet(base_folder, device=policy.device, dtype=policy.dtype),
        vae=load_vae(base_folder, device=policy.device, dtype=torch.float32),
        noise_scheduler=load_noise_scheduler(base_folder),
        policy=policy,
    )
    return model, embeddings


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
