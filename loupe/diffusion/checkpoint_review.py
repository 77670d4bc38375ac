"""What is done with a checkpoint as soon as it is there: its folder, its validation loss, its previews, the manifest.

It changes no weight and picks no checkpoint; that is for the stages after training.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from loupe.atomic_io import empty_folder, read_record, write_record
from loupe.diffusion.checkpoint_files import CheckpointOrigin, write_checkpoint
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.latent_files import read_examples
from loupe.diffusion.model_loading import load_noise_scheduler
from loupe.diffusion.previews import Previews, plan_previews
from loupe.diffusion.processes import Processes
from loupe.diffusion.sample_plan import AdapterSource
from loupe.diffusion.sampling import SamplingSettings
from loupe.diffusion.trackers import Trackers
from loupe.diffusion.train_store import TrainStore
from loupe.diffusion.validation import make_validation_set
from loupe.diffusion.validation_files import Validation
from loupe.records import BaseModelInfo, CheckpointInfo, CheckpointsManifest, LatentsManifest, TrainRow
from loupe.workstore import WorkStore


@dataclass(frozen=True, slots=True)
class CheckpointReview:
    """The review of one run's checkpoints, as one of the processes that train together takes part in it."""

    base_folder: Path
    checkpoints_folder: Path
    validation: Validation
    previews: Previews | None
    """None in a process that is not the main one."""
    trackers: Trackers

    def look_at(self, base_model: BaseModelInfo, checkpoints: CheckpointsManifest) -> dict[str, str]:
        """Review what of `checkpoints` is new, and the base model; return the files left beside the checkpoints.

        File name -> SHA-256. Raises PipelineError when a validation loss is not finite or a preview's prompt too long.
        """
        source = AdapterSource(self.base_folder, base_model, self.checkpoints_folder, checkpoints)
        for row in self.validation.measure(source):
            self.trackers.log(row.model_dump(exclude={"n_images"}), step=row.step)
        if self.previews is not None:
            self.previews.draw(source)
        return self.validation.file_hashes(self.checkpoints_folder)

    def help(self) -> None:
        """Do this process's part while the main one looks at something."""
        self.validation.help(self.base_folder, self.checkpoints_folder)


def open_review(
    base_folder: Path,
    base_model: BaseModelInfo,
    *,
    latents: Path,
    checkpoints: Path,
    seed: int,
    policy: DevicePolicy,
    processes: Processes,
    store: WorkStore,
    metrics: Path,
    previews: Path,
    trackers: Trackers,
    validation_timesteps: int,
    train_text_encoder: bool,
    preview_prompts: int,
    prompts: Mapping[str, str],
    seeds_per_prompt: int,
    guidance_scale: float,
    num_inference_steps: int,
    negative_prompt: str,
    batch_size: int,
) -> CheckpointReview:
    """Return the review of a run on the val split of data/latents; everything from `prompts` on is as generate has it.

    `latents`, `checkpoints`, `metrics` and `previews` are folders; the main process empties `previews`. Raises
    PipelineError as read_examples.
    """
    resolution_px = read_record(latents / "manifest.json", LatentsManifest, made_by="encode").resolution_px
    data = make_validation_set(
        read_examples(latents, "val", base=base_model, with_tokens=train_text_encoder),
        alphas_cumprod=load_noise_scheduler(base_folder).alphas_cumprod,
        n_timesteps=validation_timesteps,
        prediction_type=base_model.prediction_type,
        scaling_factor=base_model.scaling_factor,
        seed=seed,
    )
    validation = Validation(data, seed=seed, policy=policy, store=store, metrics=metrics, processes=processes)
    if not processes.is_main:
        return CheckpointReview(base_folder, checkpoints, validation, None, trackers)
    plan = plan_previews(
        prompts, preview_prompts, seeds_per_prompt=seeds_per_prompt, batch_size=batch_size, policy=policy
    )
    settings = SamplingSettings(
        width_px=resolution_px,
        height_px=resolution_px,
        guidance_scale=guidance_scale,
        num_inference_steps=num_inference_steps,
        negative_prompt=negative_prompt,
    )
    drawn = Previews(plan, settings=settings, root_seed=seed, folder=previews, store=store)
    return CheckpointReview(base_folder, checkpoints, validation, drawn, trackers)


class KeptCheckpoints:
    """The checkpoints of one run: written as folders, reviewed, and listed in a manifest that is written at the end."""

    def __init__(self, states: TrainStore, origin: CheckpointOrigin, review: CheckpointReview) -> None:
        self.states = states
        self.origin = origin
        self.review = review
        self.folder = empty_folder(review.checkpoints_folder)
        self._kept: dict[int, CheckpointInfo] = {}
        self._files: dict[str, str] = {}

    def keep(self, steps: Iterable[int]) -> None:
        """Write the checkpoints of stored steps, then review them, and the base model where that has not been done."""
        for step in steps:
            self._kept[step] = write_checkpoint(self.folder, self.states.load(step), self.origin)
        self._files = self.review.look_at(self.origin.base_model, self._manifest())

    def follow(self, rows: Iterable[TrainRow], *, steps: Collection[int]) -> Iterator[TrainRow]:
        """Yield training's rows; before that of one of `steps`, whose state must be stored by then, keep it."""
        for row in rows:
            if row.step in steps:
                self.keep([row.step])
            yield row

    def write_manifest(self) -> None:
        """Write the manifest, last: from then on the stage counts as done."""
        write_record(self.folder / "manifest.json", self._manifest())

    def _manifest(self) -> CheckpointsManifest:
        parts = self.origin.parts
        return CheckpointsManifest(
            base_model=self.origin.base_model,
            fingerprint=self.states.key,
            checkpoints=tuple(info for _, info in sorted(self._kept.items())),
            effective_batch_size=self.origin.effective_batch_size,
            device=parts["device"],
            dtype=parts["dtype"],
            library_versions=parts["versions"],
            files=self._files,
        )
