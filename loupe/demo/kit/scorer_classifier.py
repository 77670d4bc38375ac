"""Training of the demo classifier on renderings of both looks, softened and shifted as generated pictures are."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from loupe.atomic_io import atomic_path, write_json
from loupe.demo.catalogue import ARTICLE_TYPES, COLOURS
from loupe.demo.kit.corpus import Corpus
from loupe.demo.kit.optimise import AveragedWeights, LossLog, half_precision, steps_with_rate
from loupe.demo.kit.settings import SIZE_PX, KitSettings
from loupe.metrics.classifier import ClassifierOutput, ProductClassifier

MAX_SHIFT_PX = 10


def _jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def _disturb(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 [H, W, 3]: shifted (edges repeated), mirrored, recompressed, each at random."""
    dy, dx = rng.integers(-MAX_SHIFT_PX, MAX_SHIFT_PX + 1, 2)
    padded = np.pad(picture, [(MAX_SHIFT_PX, MAX_SHIFT_PX)] * 2 + [(0, 0)], mode="edge")
    moved = padded[MAX_SHIFT_PX + dy :, MAX_SHIFT_PX + dx :][:SIZE_PX, :SIZE_PX]
    moved = moved[:, ::-1] if rng.random() < 0.5 else moved
    return _jpeg(np.ascontiguousarray(moved), int(rng.integers(40, 95))) if rng.random() < 0.25 else moved


def soften(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Float [N, 3, H, W]: the whole batch is blurred by a random amount and gets noise of a random strength."""
    scale = rng.choice([1.0, 1.0, 0.6, 0.4, 0.25])
    if scale < 1:
        size = pictures.shape[-1]
        small = functional.interpolate(pictures, scale_factor=scale, mode="bilinear", antialias=True)
        pictures = functional.interpolate(small, size=size, mode="bicubic")
    noise = torch.from_numpy(rng.standard_normal(pictures.shape, dtype=np.float32)) * rng.choice([0.0, 0.02, 0.05])
    return (pictures + noise).clamp(0, 1)


def _batch(
    looks: tuple[Corpus, Corpus], settings: KitSettings, step: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng([settings.seed, 13, step])
    pictures, types, colours = [], [], []
    for place in range(settings.classifier_batch):
        corpus = looks[place % 2]
        row = int(rng.integers(len(corpus.items)))
        pictures.append(_disturb(corpus.images[row], rng))
        types.append(ARTICLE_TYPES.index(corpus.items[row].article_type))
        colours.append(COLOURS.index(corpus.items[row].colour))
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    return soften(batch, rng), torch.tensor(types), torch.tensor(colours)


def build_classifier(settings: KitSettings) -> ProductClassifier:
    """An untrained classifier; initial weights come from the settings' seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed + 4)
        return ProductClassifier(article_types=ARTICLE_TYPES, colours=COLOURS)


def train_classifier(
    everyday: Corpus, catalogue: Corpus, *, settings: KitSettings, device: torch.device, folder: Path
) -> LossLog:
    """Train and save to `folder`/classifier (float16 safetensors, config.json)."""
    model = build_classifier(settings).to(device)
    average = AveragedWeights(model, decay=settings.ema_decay)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01, fused=True)
    log = LossLog(folder / "classifier.csv")
    for step in steps_with_rate(optimiser, steps=settings.classifier_steps, rate=settings.classifier_learning_rate):
        pictures, types, colours = (part.to(device) for part in _batch((everyday, catalogue), settings, step))
        with half_precision(device):
            output = ClassifierOutput(*(part.float() for part in model(pictures)))
        losses = {
            "article_type": functional.cross_entropy(output.article_type, types, label_smoothing=0.02),
            "colour": functional.cross_entropy(output.colour, colours, label_smoothing=0.02),
        }
        sum(losses.values()).backward()
        optimiser.step()
        optimiser.zero_grad()
        average.update(model, step)
        log.add(step + 1, losses)
    average.copy_to(model)
    save_classifier(folder / "classifier", model)
    return log


def save_classifier(folder: Path, model: ProductClassifier) -> None:
    """Write `model.safetensors` (float16) and `config.json`."""
    with atomic_path(folder / "model.safetensors") as path:
        save_file({name: value.half().contiguous().cpu() for name, value in model.state_dict().items()}, path)
    write_json(folder / "config.json", {"article_types": list(model.article_types), "colours": list(model.colours)})
