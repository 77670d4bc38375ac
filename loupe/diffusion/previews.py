"""Pictures of a training run while it runs: the first prompts of `generate`, at the base model and every checkpoint.

They are drawn by the code, with the settings and under the keys of the stage generate, which then finds them in the
work store; so they cost nothing over the whole line. They are no output of training: they lie below .work, and no
weight depends on them, since everything that draws is loaded for it and freed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loupe.atomic_io import empty_folder
from loupe.diffusion.device import DevicePolicy
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


def plan_previews(
    prompts: Mapping[str, str], count: int, *, seeds_per_prompt: int, policy: DevicePolicy
) -> PreviewPlan:
    """Return the plan for the first `count` of `prompts`: seed index 0 of each.

    On the CPU the UNet always takes the same number of pictures at a time, so the places left over are given to the
    next seeds, up to the `seeds_per_prompt` of generate: they cost nothing and generate wants them anyway.
    """
    chosen = tuple(fixed_prompts(dict(list(prompts.items())[:count]), known_colours=()))
    places = pictures_at_once(policy, len(chosen)) // len(chosen) if chosen else 1
    return PreviewPlan(chosen, min(max(1, places), seeds_per_prompt))


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
                batch_size=len(self.plan.prompts),
                output=self.folder,
                store=self.store,
                what="preview",
            )
        except RuntimeError as error:
            reason = (str(error).splitlines() or [""])[0]
            if "out of memory" not in reason:  # as CUDA and MPS both say it; MPS has no exception of its own for it
                raise
            say(f"previews: no more in this run, the device's memory is full ({reason}). Training goes on.")
            self.plan = PreviewPlan((), 0)
