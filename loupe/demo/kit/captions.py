"""Captions of rendered items: everyday phrasings for the base model, the catalogue template for the scorers.

Everyday captions name the object, its colour and the background, so that each colour word binds to its noun. Some are
worded like
product captions while the picture stays an everyday scene: the base model understands the words and has never seen
the look.
"""

import numpy as np

from loupe.demo.catalogue import ItemSpec, sample_item
from loupe.demo.catalogue.scene import backdrop_of

NOUNS: dict[str, tuple[str, ...]] = {
    "Casual Shoes": ("casual shoes", "casual shoes", "casual shoes", "casual shoe", "shoes", "shoe"),
    "Handbags": ("handbag", "handbag", "handbags", "bag"),
    "Tshirts": ("t-shirt", "t-shirt", "tshirt", "tshirts"),
    "Caps": ("cap", "cap", "baseball cap", "caps"),
    "Watches": ("watch", "watch", "wrist watch", "watches"),
    "Backpacks": ("backpack", "backpack", "backpacks", "rucksack"),
    "Boots": ("boots", "boots", "boot"),
    "Bottles": ("bottle", "bottle", "water bottle", "bottles"),
}
STYLE_NOUNS: dict[str, tuple[str, ...]] = {
    "sneaker": ("sneakers", "sneaker"),
    "high_top": ("high-top shoes", "high-top sneakers"),
    "runner": ("running shoes",),
    "skate": ("skate shoes",),
    "slip_on": ("slip-on shoes",),
    "loafer": ("loafers", "loafer"),
    "satchel": ("satchel handbag",),
    "tote": ("tote handbag",),
    "tall": ("tall boots",),
    "chelsea": ("chelsea boots",),
}
SCENES: dict[str, tuple[str, ...]] = {
    "plain": ("on a {b} background", "in front of a {b} wall"),
    "gradient": ("on a {b} background", "on a {b} gradient background"),
    "table": ("on a table in front of a {b} wall", "on a {b} background", "on a table"),
    "stripes": ("on a striped {b} background", "on a {b} background with stripes"),
    "circles": ("on a {b} background with circles", "on a {b} background"),
    "tiles": ("on a {b} tiled background", "in front of {b} tiles"),
    "spotlight": ("on a {b} background in a spotlight", "on a {b} background"),
}
OPENINGS = (
    "a photo of {o} {s}",
    "a photo of {o} {s}",
    "a photo of {o}",
    "{o} {s}",
    "a picture of {o} {s}",
    "{o}",
    "everyday photo, {o} {s}",
)
TAILS = ("centered", "high quality", "product photography")


def _article(phrase: str, noun: str, rng: np.random.Generator) -> str:
    if noun.endswith("s") and not noun.endswith("ss"):
        return phrase
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase if rng.random() < 0.9 else phrase


def _noun(item: ItemSpec, rng: np.random.Generator, *, plain_share: float) -> str:
    nouns = NOUNS[item.article_type]
    if item.style in STYLE_NOUNS and rng.random() > plain_share:
        nouns = STYLE_NOUNS[item.style]
    return nouns[int(rng.integers(len(nouns)))]


def _product_words(item: ItemSpec, rng: np.random.Generator, ending: str) -> str:
    """The words of a product caption, most clauses optional, in the order of the default caption template."""
    noun = item.article_type.lower() if rng.random() < 0.7 else _noun(item, rng, plain_share=1.0)
    clauses = [
        f"{'A professional product photo' if rng.random() < 0.8 else 'a product photo'} of {item.colour.lower()} {noun}"
    ]
    options = [f"{item.season} collection".lower(), item.gender.lower(), f"{item.brand} brand", ending, *TAILS[1:]]
    clauses += [option for option in options if option == ending or rng.random() < 0.75]
    return ", ".join(clauses)


def everyday_caption(item: ItemSpec, rng: np.random.Generator) -> str:
    """One caption of the item's everyday picture."""
    backdrop, kind = backdrop_of(item)
    scenes = SCENES[kind]
    scene = scenes[int(rng.integers(len(scenes)))].format(b=backdrop)
    if rng.random() < 0.4:
        return _product_words(item, rng, scene)
    noun = _noun(item, rng, plain_share=0.75)
    thing = _article(f"{item.colour.lower()} {noun}", noun, rng)
    opening = OPENINGS[int(rng.integers(len(OPENINGS)))]
    return opening.format(o=thing, s=scene)


def catalogue_caption(item: ItemSpec, rng: np.random.Generator) -> str:
    """One caption of the item's catalogue picture (scorers only; the base model never reads these)."""
    if rng.random() < 0.3:
        noun = _noun(item, rng, plain_share=0.8)
        return f"a photo of {_article(f'{item.colour.lower()} {noun}', noun, rng)} on a white background"
    return _product_words(item, rng, "centered on white background")


def caption_corpus(seed: int, count: int) -> list[str]:
    """`count` everyday and `count` catalogue captions, from which the tokenizer is learnt."""
    texts = []
    for index in range(count):
        rng = np.random.default_rng([seed, 21, index])
        item = sample_item(rng)
        texts += [everyday_caption(item, rng), catalogue_caption(item, rng)]
    return texts
