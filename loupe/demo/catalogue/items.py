"""What one product of the demo catalogue is: a frozen record, and how one is drawn at random.

Does not draw pictures.
"""

from dataclasses import dataclass

import numpy as np

from loupe.demo.catalogue.palette import COLOURS, FAMILIES, RGB, shade, vary

STYLES: dict[str, tuple[str, ...]] = {
    "Casual Shoes": ("sneaker", "high_top", "runner", "skate", "slip_on", "loafer"),
    "Handbags": ("tote", "satchel", "bucket"),
    "Tshirts": ("crew", "v_neck"),
    "Caps": ("classic", "trucker"),
    "Watches": ("round", "square"),
    "Backpacks": ("daypack", "roll_top"),
    "Boots": ("lace_up", "chelsea", "tall"),
    "Bottles": ("plain", "loop", "straw"),
}
ARTICLE_TYPES: tuple[str, ...] = tuple(STYLES)
DECORATIONS = ("none", "none", "stripes", "band", "chevron", "disc")
BRANDS = ("Nordlund", "Kestrel", "Amberway", "Fjellmark", "Ozalo", "Tiderun", "Marlowe", "Quillon", "Sunbeck", "Halden")
MODELS = (
    "Drift",
    "Harbor",
    "Pico",
    "Lumen",
    "Atlas",
    "Cove",
    "Ember",
    "Solo",
    "Ridge",
    "Vela",
    "Tempo",
    "Birch",
    "Orbit",
    "Nimbus",
)
GENDERS = ("Men", "Women", "Boys", "Girls", "Unisex")
GENDER_SHARES = (0.42, 0.32, 0.08, 0.08, 0.10)
SEASONS = ("Summer", "Winter", "Fall", "Spring")
SEASON_SHARES = (0.4, 0.22, 0.26, 0.12)
USAGES = ("Casual", "Sports", "Travel")
GENES = 16


@dataclass(frozen=True)
class ItemSpec:
    """One product.

    `genes` are 16 numbers in [0, 1) that set its proportions; `scene_seed` sets background, framing and light.
    """

    article_type: str
    style: str
    decoration: str
    colour: str
    rgb: RGB
    accent_rgb: RGB
    trim_rgb: RGB
    lace_rgb: RGB
    genes: tuple[float, ...]
    brand: str
    model: str
    gender: str
    season: str
    usage: str
    year: int
    scene_seed: int


def _accent(rgb: RGB, colour: str, rng: np.random.Generator) -> RGB:
    """Neutral or of the same hue, so that the named colour stays the one seen."""
    options = [shade(rgb, 0.6), shade(rgb, 1.5)]
    options += [vary(FAMILIES["White"], rng, spread=3)] * 2 if colour != "White" else [(170, 172, 176)] * 2
    options += [(48, 48, 52)] if colour not in ("Black", "Navy Blue") else [(200, 200, 200)]
    return options[int(rng.integers(len(options)))]


def _trim(rgb: RGB, colour: str, rng: np.random.Generator) -> RGB:
    options = [(240, 240, 236), (240, 240, 236), (228, 222, 206), (176, 128, 80), (52, 50, 50), shade(rgb, 0.62)]
    if colour in ("White", "Grey"):
        options = [(222, 222, 220), (205, 205, 204), (228, 222, 206), shade(rgb, 0.8)]
    return options[int(rng.integers(len(options)))]


def paint(colour: str, rng: np.random.Generator) -> dict[str, RGB]:
    """The four paints of an item of the named colour."""
    rgb = vary(FAMILIES[colour], rng)
    light_lace = vary((240, 240, 238), rng, spread=3)
    lace = shade(rgb, 0.5) if colour in ("White",) or rng.random() < 0.25 else light_lace
    return {"rgb": rgb, "accent_rgb": _accent(rgb, colour, rng), "trim_rgb": _trim(rgb, colour, rng), "lace_rgb": lace}


def sample_item(rng: np.random.Generator, *, article_type: str | None = None, colour: str | None = None) -> ItemSpec:
    """Draw one product; type and colour are uniform unless given. Raises KeyError for an unknown type or colour."""
    article_type = article_type or ARTICLE_TYPES[int(rng.integers(len(ARTICLE_TYPES)))]
    colour = colour or COLOURS[int(rng.integers(len(COLOURS)))]
    styles = STYLES[article_type]
    return ItemSpec(
        article_type=article_type,
        style=styles[int(rng.integers(len(styles)))],
        decoration=DECORATIONS[int(rng.integers(len(DECORATIONS)))],
        colour=colour,
        **paint(colour, rng),
        genes=tuple(float(gene) for gene in rng.random(GENES)),
        brand=BRANDS[int(rng.integers(len(BRANDS)))],
        model=MODELS[int(rng.integers(len(MODELS)))],
        gender=GENDERS[int(rng.choice(len(GENDERS), p=GENDER_SHARES))],
        season=SEASONS[int(rng.choice(len(SEASONS), p=SEASON_SHARES))],
        usage=USAGES[int(rng.choice(len(USAGES), p=(0.85, 0.1, 0.05)))],
        year=int(rng.integers(2011, 2019)),
        scene_seed=int(rng.integers(2**31)),
    )
