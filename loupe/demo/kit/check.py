"""Measures the kit: scorers on held-out renderings, the base's pictures, and a short LoRA on top of it."""

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from loupe.demo.catalogue import ARTICLE_TYPES, COLOURS, render_item, sample_item
from loupe.demo.catalogue.items import ItemSpec
from loupe.demo.catalogue.kaggle_folder import PHOTO_ZOOM
from loupe.demo.kit.captions import NOUNS
from loupe.demo.kit.corpus import Corpus
from loupe.demo.kit.scorer_clip import load_clip
from loupe.demo.kit.settings import SIZE_PX
from loupe.demo.kit.trial import LoraTrial, sample, train_lora
from loupe.demo.kit.vae import reconstruct, to_tensor
from loupe.metrics.classifier import ProductClassifier

LOOKS = ("everyday", "catalogue")
RING = 0.06
WHITE, WHITE_SHARE = 240, 0.99
TRIAL_IMAGES = 300
SEEDS_PER_COLOUR = 4
TEMPLATE = (
    "A professional product photo of {colour} casual shoes, {season} collection, {gender}, {brand} brand, "
    "centered on white background, high quality, product photography"
)


def ring_white_share(pictures: np.ndarray, *, threshold: int = WHITE) -> np.ndarray:
    """Per picture uint8 [N, H, W, 3], the share of border pixels whose darkest channel reaches `threshold`."""
    side = pictures.shape[1]
    width = round(RING * side)
    ring = np.ones((side, side), dtype=bool)
    ring[width:-width, width:-width] = False
    return (pictures.min(axis=-1)[:, ring] >= threshold).mean(axis=1)


@torch.no_grad()
def predict(classifier: ProductClassifier, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the most likely article type and colour of each picture."""
    types, colours = [], []
    for start in range(0, len(pictures), 64):
        batch = torch.from_numpy(np.ascontiguousarray(pictures[start : start + 64])).permute(0, 3, 1, 2).float() / 255
        output = classifier(batch)
        types.append(output.article_type.argmax(1).numpy())
        colours.append(output.colour.argmax(1).numpy())
    return np.concatenate(types), np.concatenate(colours)


def classifier_accuracy(classifier: ProductClassifier, corpus: Corpus) -> dict[str, float]:
    """Shares of held-out pictures whose type and colour are named right."""
    types, colours = predict(classifier, corpus.images)
    return {
        "article_type": float(
            np.mean([classifier.article_types[t] == i.article_type for t, i in zip(types, corpus.items, strict=True)])
        ),
        "colour": float(
            np.mean([classifier.colours[c] == i.colour for c, i in zip(colours, corpus.items, strict=True)])
        ),
    }


@torch.no_grad()
def clip_accuracy(folder: Path, corpus: Corpus) -> dict[str, float]:
    """Share of held-out pictures whose own type and colour, among all pairs, give the best fitting caption."""
    model, tokenizer = load_clip(folder)
    labels = [(article_type, colour) for article_type in ARTICLE_TYPES for colour in COLOURS]
    texts = [f"a photo of a {colour.lower()} {NOUNS[article_type][0]}" for article_type, colour in labels]
    text_features = model.encode_text(tokenizer(texts), normalize=True)
    hits = []
    for start in range(0, len(corpus.images), 64):
        features = model.encode_image(to_tensor(corpus.images[start : start + 64]), normalize=True)
        best = (features @ text_features.T).argmax(1).tolist()
        own = corpus.items[start : start + 64]
        hits += [labels[b] == (item.article_type, item.colour) for b, item in zip(best, own, strict=True)]
    return {"pair": float(np.mean(hits))}


def vae_quality(pipeline: StableDiffusionPipeline, corpus: Corpus, *, count: int = 64) -> dict[str, float]:
    """Mean absolute error in [0, 255], and the share of pure white pixels that come back at 245 or more."""
    real = np.asarray(corpus.images[:count])
    made = reconstruct(pipeline.vae, real)
    white = real.min(axis=-1) == 255
    result = {"mean_absolute_error": float(np.abs(made.astype(int) - real).mean())}
    if white.any():
        result["white_share"] = float((made.min(axis=-1)[white] >= 245).mean())
    return result


def base_agreement(
    pipeline: StableDiffusionPipeline, classifier: ProductClassifier
) -> tuple[dict[str, float], np.ndarray]:
    """Pictures of every (type, colour) from the plain prompt, and how many the classifier recognises."""
    labels = [(article_type, colour) for article_type in ARTICLE_TYPES for colour in COLOURS]
    prompts = [f"a photo of a {colour.lower()} {NOUNS[article_type][0]}" for article_type, colour in labels]
    pictures = sample(pipeline, prompts, seeds=range(len(prompts)))
    types, colours = predict(classifier, pictures)
    agree = [
        (classifier.article_types[t] == a, classifier.colours[c] == b)
        for t, c, (a, b) in zip(types, colours, labels, strict=True)
    ]
    return dict(zip(("article_type", "colour"), np.mean(agree, axis=0).tolist(), strict=True)), pictures


def shoe_prompts() -> tuple[list[str], list[str]]:
    """Catalogue prompts of casual shoes in every colour, SEEDS_PER_COLOUR times, with the colour asked for."""
    colours = [colour for colour in COLOURS for _ in range(SEEDS_PER_COLOUR)]
    words = [
        ("summer", "men", "Kestrel"),
        ("winter", "women", "Halden"),
        ("fall", "men", "Ozalo"),
        ("spring", "unisex", "Nordlund"),
    ]
    prompts = []
    for place, colour in enumerate(colours):
        season, gender, brand = words[place % len(words)]
        prompts.append(TEMPLATE.format(colour=colour.lower(), season=season, gender=gender, brand=brand))
    return prompts, colours


def catalogue_scores(pictures: np.ndarray, colours: list[str], classifier: ProductClassifier) -> dict[str, float]:
    """Colour agreement, share of casual shoes, share that passes the background gate."""
    types, predicted = predict(classifier, pictures)
    return {
        "colour_agreement": float(
            np.mean([classifier.colours[p] == c for p, c in zip(predicted, colours, strict=True)])
        ),
        "casual_shoes": float(np.mean([classifier.article_types[t] == "Casual Shoes" for t in types])),
        "background_pass": float((ring_white_share(pictures) >= WHITE_SHARE).mean()),
    }


def trial_items(seed: int) -> list[ItemSpec]:
    """Casual shoes for the trial, from generators that no training of the kit uses."""
    rng = np.random.default_rng([seed, 31])
    return [
        sample_item(rng, article_type="Casual Shoes", colour=COLOURS[k % len(COLOURS)]) for k in range(TRIAL_IMAGES)
    ]


def lora_trial(
    base: Path, classifier: ProductClassifier, *, seed: int, trial: LoraTrial
) -> tuple[dict[str, dict[str, float]], np.ndarray, np.ndarray]:
    """Scores of the base and of a LoRA on the same prompts and seeds, and the pictures of both."""
    pipeline = load_base(base)
    prompts, colours = shoe_prompts()
    seeds = [k % SEEDS_PER_COLOUR for k in range(len(prompts))]
    before = sample(pipeline, prompts, seeds=seeds)
    items = trial_items(seed)
    images = np.stack([render_item(item, look="catalogue", size_px=SIZE_PX, zoom=PHOTO_ZOOM) for item in items])
    captions = [
        TEMPLATE.format(colour=i.colour.lower(), season=i.season.lower(), gender=i.gender.lower(), brand=i.brand)
        for i in items
    ]
    train_lora(pipeline, images, captions, trial=trial)
    after = sample(pipeline, prompts, seeds=seeds)
    scores = {
        "base": catalogue_scores(before, colours, classifier),
        "lora": catalogue_scores(after, colours, classifier),
    }
    return scores, before, after


def load_base(folder: Path) -> StableDiffusionPipeline:
    """The base model in single precision."""
    return StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, torch_dtype=torch.float32, local_files_only=True
    )


def contact_sheet(pictures: np.ndarray, columns: int) -> np.ndarray:
    """uint8 [rows x H, columns x W, 3], row by row; the last row may end white."""
    count, height, width, _ = pictures.shape
    rows = -(-count // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, dtype=np.uint8)
    for place, picture in enumerate(pictures):
        y, x = divmod(place, columns)
        sheet[y * height : (y + 1) * height, x * width : (x + 1) * width] = picture
    return sheet
