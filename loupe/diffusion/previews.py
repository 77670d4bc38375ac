"""Pictures of a training run while it runs: the first prompts of `generate`, at the base model and every checkpoint.

They are drawn by the code, with the settings and under the keys of the stage generate, which then finds them in the
work store; so they cost nothing over the whole line. They are no output of training: they lie below .work, and no
weight depends on them, since everything that draws is loaded for it and freed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from loupe.atomic_io import empty_folder
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.device_memory import DeviceFull
from loupe.diffusion.generation import render_samples
from loupe.diffusion.prompts import fixed_prompts
from loupe.diffusion.sample_plan import AdapterSource
from loupe.diffusion.sampling import SamplingSettings, pictures_at_once
from loupe.progress import say
from loupe.records import BASE_STEP, PromptRecord
from loupe.workstore import WorkStore


@dataclass(frozen=True, slots=True)
class PreviewPlan:
    """Which pictures every checkpoint draws."""

    prompts: tuple[PromptRecord, ...]
    seeds_per_prompt: int
    batch_size: int


def plan_previews(
    prompts: Mapping[str, str], count: int, *, seeds_per_prompt: int, batch_size: int, policy: DevicePolicy
) -> PreviewPlan:
    """Return the plan for the first `count` of `prompts`: seed index 0 of each.

    The UNet takes as many pictures at a time as in generate, whose `batch_size` and `seeds_per_prompt` are given: only
    then are they the same pictures. Places left over go to the next seeds, which generate wants anyway.
    """
    chosen = tuple(fixed_prompts(dict(list(prompts.items())[:count]), known_colours=()))
    places = pictures_at_once(policy, batch_size) // len(chosen) if chosen else 1
    return PreviewPlan(chosen, min(max(1, places), seeds_per_prompt), batch_size)


class Previews:
    """Draws the pictures of one run into `folder`, a samples folder with its manifest, as checkpoints come."""

    def __init__(
        self, plan: PreviewPlan, *, settings: SamplingSettings, root_seed: int, folder: Path, store: WorkStore
    ) -> None:
        self.plan = plan
        self.settings = settings
        self.root_seed = root_seed
        self.folder = empty_folder(folder)
        self.store = store

    def draw(self, source: AdapterSource) -> None:
        """Draw the base model and every checkpoint of `source`; what the work store has is copied.

        Where the GPU's memory does not hold the UNets of trainer and previews, it says so and draws no more: training
        is what the user came for. Raises PipelineError when a prompt is too long for the text encoder.
        """
        if not self.plan.prompts:
            return
        try:
            render_samples(
                source,
                steps=[BASE_STEP, *(info.step for info in source.checkpoints.checkpoints)],
                prompts=self.plan.prompts,
                seeds_per_prompt=self.plan.seeds_per_prompt,
                purpose="generate",
                root_seed=self.root_seed,
                settings=self.settings,
                batch_size=self.plan.batch_size,
                output=self.folder,
                store=self.store,
                what="preview",
            )
        except DeviceFull as error:
            say(f"previews: no more in this run; training goes on. {error}")
            self.plan = replace(self.plan, prompts=())
