"""How many pictures a GPU draws together: what was asked for, or half of it again and again until its memory holds it.

It draws nothing. The numbers come from memory.py; those it can give are few, so a picture's key, of which the number is
a part, is soon the same again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.diffusion.base_model import context_length, pixels_per_latent
from loupe.diffusion.device_memory import FREE_MEMORY, release_memory
from loupe.diffusion.memory import GB, available_bytes, drawing_bytes, drawing_problem, pictures_that_fit

if TYPE_CHECKING:
    from loupe.diffusion.cost_model import DrawingCost
    from loupe.diffusion.device import DevicePolicy
    from loupe.diffusion.sampling import SamplingSettings


@dataclass(frozen=True, slots=True)
class Room:
    """The memory that a device has free for drawing, and what drawing takes of it."""

    cost: DrawingCost
    side_px: int
    guided: bool
    device: str
    free_bytes: int

    def pictures(self, asked: int) -> int:
        """Return how many of `asked` pictures to draw together: at least 1, which only trying can refuse."""
        fitting = pictures_that_fit(
            self.cost, asked=asked, guided=self.guided, device=self.device, free_bytes=self.free_bytes
        )
        return max(fitting, 1)

    def why_fewer(self, asked: int) -> str:
        """Return why not `asked` together."""
        needed = drawing_bytes(self.cost, n_pictures=asked, guided=self.guided, device=self.device)
        return f"{asked} need about {needed / GB:.1f} GB on {self.device}, and {self.free_bytes / GB:.1f} GB are free"

    def why_none(self) -> str:
        """Return why not even one picture could be drawn, and what could be."""
        problem = drawing_problem(
            self.cost, n_pictures=1, side_px=self.side_px, guided=self.guided, device=self.device,
            free_bytes=self.free_bytes,
        )  # fmt: skip
        expected = f"although drawing one was estimated to fit into the {self.free_bytes / GB:.1f} GB that are free."
        return f"The memory of {self.device} did not hold one picture: {problem or expected} {FREE_MEMORY}"


def takes_fewer(policy: DevicePolicy) -> bool:
    """Say whether memory may make fewer pictures go together: on a GPU. On the CPU their bits are promised."""
    return policy.device != "cpu"


def measure_room(base: Path, *, settings: SamplingSettings, policy: DevicePolicy) -> Room:
    """Return the room for drawing with the base model in `base`; counting takes seconds, and no weights."""
    side_px = max(settings.width_px, settings.height_px)
    cost = _cost(base, side_px // pixels_per_latent(base), context_length(base), policy)
    release_memory(policy.device)
    return Room(cost, side_px, settings.guidance_scale > 1, policy.device, available_bytes(policy))


@cache
def _cost(base: Path, latent_side: int, text_tokens: int, policy: DevicePolicy) -> DrawingCost:
    from loupe.diffusion.cost_model import drawing_cost

    return drawing_cost(base, latent_side=latent_side, text_tokens=text_tokens, policy=policy)
