"""Where every artefact of a run lies. It names files; it neither reads nor writes them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class ProjectPaths:
    """The layout of one project folder; `root` holds params.yaml."""

    root: Path

    @property
    def dataset(self) -> Path:
        """Prepared images and captions by split, the audit report, and the dataset manifest."""
        return self.root / "data" / "dataset"

    @property
    def latents(self) -> Path:
        """VAE mean and std per image and text embeddings per caption."""
        return self.root / "data" / "latents"

    @property
    def reference(self) -> Path:
        """Features of the real images per extractor, and the null distributions."""
        return self.root / "data" / "reference"

    @property
    def checkpoints(self) -> Path:
        """One folder `step-N` per checkpoint, and their manifest."""
        return self.root / "data" / "checkpoints"

    @property
    def samples(self) -> Path:
        """Generated images as `<prompt>-<seed index>/<step>.png`, and their manifest."""
        return self.root / "data" / "samples"

    @property
    def evaluation(self) -> Path:
        """Features of the samples and the provenance of every score."""
        return self.root / "data" / "evaluation"

    @property
    def confirmation(self) -> Path:
        """Samples on test prompts for the base model and the selected checkpoint."""
        return self.root / "data" / "confirmation"

    @property
    def export(self) -> Path:
        """Files to take away: LoRA in each format, model card."""
        return self.root / "data" / "export"

    @property
    def metrics(self) -> Path:
        """Git-tracked JSON and CSV results."""
        return self.root / "metrics"

    @property
    def demo(self) -> Path:
        """The small base model and scorers that come with the repository."""
        return self.root / "data" / "demo"

    @property
    def work(self) -> Path:
        """The content-addressed work store.

        DVC points DVC_ROOT at the parent repository in queued and temporary runs, so all runs share one store.
        """
        return Path(os.environ.get("DVC_ROOT") or self.root) / ".work"

    @property
    def train_telemetry(self) -> Path:
        """Speed and memory of the latest training in this very folder: no artefact, and shared with no other run."""
        return self.root / ".work" / "train-telemetry.csv"

    @property
    def trackers(self) -> Path:
        """What experiment trackers write, of all runs."""
        return self.work / "trackers"

    @property
    def previews(self) -> Path:
        """Pictures that the latest training in this very folder drew at its checkpoints, as in `samples`."""
        return self.root / ".work" / "previews"


def step_name(step: int) -> str:
    """Return the folder name of a checkpoint: 500 -> 'step-000500'."""
    return f"step-{step:06d}"
