"""The demo's small classifier: article type and colour of a picture, and features for Fréchet distances.

Only the network and the loading of trained weights; training lives with the demo kit. Weights that were not trained
cannot be loaded by
accident: the folder must hold `config.json` and `model.safetensors`.
"""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from loupe.errors import PipelineError

FEATURES = 128


class ClassifierOutput(NamedTuple):
    """features float [N, 128]; article_type and colour: unnormalised logits [N, labels]."""

    features: torch.Tensor
    article_type: torch.Tensor
    colour: torch.Tensor

    def joint_log_probabilities(self) -> torch.Tensor:
        """Log p(type) + log p(colour) of every pair, [N, types x colours]: normalised over the pairs."""
        pairs = self.article_type.log_softmax(1)[:, :, None] + self.colour.log_softmax(1)[:, None, :]
        return pairs.flatten(1)


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(8, outputs), nn.SiLU())


class ProductClassifier(nn.Module):
    """A small CNN with two heads.

    Pictures of any size are averaged down to 64x64, so slight softness matters little.
    """

    input_px = 64

    def __init__(self, *, article_types: tuple[str, ...], colours: tuple[str, ...]) -> None:
        super().__init__()
        self.article_types, self.colours = article_types, colours
        self.stem = nn.Sequential(_block(3, 24, 1), _block(24, 32, 2), _block(32, 48, 1))
        self.body = nn.Sequential(_block(48, 64, 2), _block(64, 80, 1), _block(80, 112, 2), _block(112, 128, 1))
        self.embed = nn.Linear(2 * 128, FEATURES)
        self.article_type_head = nn.Linear(FEATURES, len(article_types))
        self.colour_head = nn.Linear(FEATURES, len(colours))

    def forward(self, pictures: torch.Tensor) -> ClassifierOutput:
        """pictures: float [N, 3, H, W] in [0, 1], H and W at least 64."""
        small = functional.interpolate(pictures, size=(self.input_px, self.input_px), mode="area")
        maps = self.body(self.stem(small * 2 - 1))
        pooled = torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
        features = functional.silu(self.embed(pooled))
        return ClassifierOutput(features, self.article_type_head(features), self.colour_head(features))


def load_classifier(folder: Path) -> ProductClassifier:
    """The trained classifier in evaluation mode, float32, on the CPU.

    Raises PipelineError if the folder lacks `config.json` or `model.safetensors`, or if they do not fit each other.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
    except FileNotFoundError as error:
        raise PipelineError(
            f"{error.filename or folder} is not there. Restore data/demo from git, or run: make demo-kit"
        ) from None
    classifier = ProductClassifier(article_types=tuple(config["article_types"]), colours=tuple(config["colours"]))
    try:
        classifier.load_state_dict({name: value.float() for name, value in weights.items()})
    except RuntimeError as error:
        raise PipelineError(f"{folder / 'model.safetensors'} does not fit config.json beside it: {error}") from None
    return classifier.eval().requires_grad_(False)
