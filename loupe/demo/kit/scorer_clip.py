"""Training of the demo's small open_clip model on renderings of both looks and their captions.

Every batch holds each chosen (article type, colour) pair once per look, so that type, colour and look all decide
which caption fits and no two
captions of a batch fit the same picture by design. Loss: symmetric InfoNCE (Radford et al. 2021).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file, save_file
from torch.nn import functional

from loupe.atomic_io import atomic_path, write_json
from loupe.demo.catalogue import ARTICLE_TYPES, COLOURS, ItemSpec
from loupe.demo.kit.bpe import Merge, vocabulary, write_open_clip_merges
from loupe.demo.kit.captions import catalogue_caption, everyday_caption
from loupe.demo.kit.corpus import Corpus
from loupe.demo.kit.optimise import AveragedWeights, LossLog, half_precision, steps_with_rate
from loupe.demo.kit.scorer_classifier import soften
from loupe.demo.kit.settings import CONTEXT_LENGTH, SIZE_PX, KitSettings

MEAN_STD = (0.5, 0.5, 0.5)
MAX_LOGIT_SCALE = float(np.log(50.0))


def model_config(vocab_size: int) -> dict[str, Any]:
    """Keyword arguments of `open_clip.model.CLIP`."""
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": SIZE_PX, "patch_size": 16, "width": 128, "layers": 4, "head_width": 32},
        "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": vocab_size, "width": 128, "heads": 4, "layers": 2},
    }


def build_clip(settings: KitSettings, merges: list[Merge]) -> CLIP:
    """An untrained model; initial weights come from the settings' seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed + 5)
        return CLIP(**model_config(len(vocabulary(merges))), output_dict=True)


def _by_label(corpus: Corpus) -> list[list[int]]:
    groups: list[list[int]] = [[] for _ in range(len(ARTICLE_TYPES) * len(COLOURS))]
    for row, item in enumerate(corpus.items):
        groups[_label(item)].append(row)
    return groups


def _label(item: ItemSpec) -> int:
    return ARTICLE_TYPES.index(item.article_type) * len(COLOURS) + COLOURS.index(item.colour)


class PairSampler:
    """Batches of pictures and tokens: half the (type, colour) pairs, each in both looks."""

    def __init__(self, looks: tuple[Corpus, Corpus], tokenizer: SimpleTokenizer, settings: KitSettings) -> None:
        self.looks, self.tokenizer, self.settings = looks, tokenizer, settings
        self.groups = tuple(_by_label(corpus) for corpus in looks)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures float [N, 3, H, W] in [-1, 1] and tokens int64 [N, 77] of one step."""
        rng = np.random.default_rng([self.settings.seed, 14, step])
        labels = rng.permutation(len(self.groups[0]))[: self.settings.clip_batch // 2]
        pictures, captions = [], []
        for look, caption in enumerate((everyday_caption, catalogue_caption)):
            for label in labels:
                rows = self.groups[look][label]
                row = rows[int(rng.integers(len(rows)))]
                picture = self.looks[look].images[row]
                pictures.append(picture[:, ::-1] if rng.random() < 0.5 else picture)
                captions.append(caption(self.looks[look].items[row], rng))
        batch = soften(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255, rng)
        return batch * 2 - 1, self.tokenizer(captions)


def contrastive_loss(output: dict[str, torch.Tensor]) -> torch.Tensor:
    """Symmetric InfoNCE of unit features [N, D]."""
    logits = output["logit_scale"].float() * output["image_features"].float() @ output["text_features"].float().T
    own = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def train_clip(
    everyday: Corpus,
    catalogue: Corpus,
    *,
    merges: list[Merge],
    settings: KitSettings,
    device: torch.device,
    folder: Path,
) -> LossLog:
    """Train and save to `folder`/clip: open_clip_config.json, open_clip_model.safetensors (float16), bpe.txt.gz."""
    target = folder / "clip"
    write_open_clip_merges(target / "bpe.txt.gz", merges)
    tokenizer = SimpleTokenizer(bpe_path=str(target / "bpe.txt.gz"), context_length=CONTEXT_LENGTH)
    sampler = PairSampler((everyday, catalogue), tokenizer, settings)
    model = build_clip(settings, merges).to(device)
    average = AveragedWeights(model, decay=settings.ema_decay)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    log = LossLog(folder / "clip.csv")
    for step in steps_with_rate(optimiser, steps=settings.clip_steps, rate=settings.clip_learning_rate):
        pictures, tokens = (part.to(device) for part in sampler.batch(step))
        with half_precision(device):
            output = model(pictures, tokens)
        loss = contrastive_loss(output)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        average.update(model, step)
        log.add(step + 1, {"contrastive": loss})
    average.copy_to(model)
    save_clip(target, model, vocab_size=len(vocabulary(merges)))
    return log


def save_clip(folder: Path, model: CLIP, *, vocab_size: int) -> None:
    """Write the weights and the configuration that open_clip reads."""
    with atomic_path(folder / "open_clip_model.safetensors") as path:
        save_file({name: value.half().contiguous().cpu() for name, value in model.state_dict().items()}, path)
    preprocess = {
        "size": [SIZE_PX, SIZE_PX],
        "mode": "RGB",
        "mean": MEAN_STD,
        "std": MEAN_STD,
        "interpolation": "bicubic",
    }
    config = {"model_cfg": model_config(vocab_size), "preprocess_cfg": {**preprocess, "resize_mode": "squash"}}
    write_json(folder / "open_clip_config.json", config)


def load_clip(folder: Path) -> tuple[CLIP, SimpleTokenizer]:
    """The trained model (evaluation mode, float32, CPU) and its tokenizer; pictures are [N, 3, 128, 128] in [-1, 1]."""
    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    model = CLIP(**config["model_cfg"])
    model.load_state_dict(
        {name: value.float() for name, value in load_file(folder / "open_clip_model.safetensors").items()}
    )
    tokenizer = SimpleTokenizer(bpe_path=str(folder / "bpe.txt.gz"), context_length=CONTEXT_LENGTH)
    return model.eval().requires_grad_(False), tokenizer
