"""An item as a picture, in one of two looks: `everyday` (a scene) or `catalogue` (a product photo on pure white)."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from loupe.demo.catalogue.backdrops import choose, paint_backdrop
from loupe.demo.catalogue.drawing import Drawing, rasterise
from loupe.demo.catalogue.footwear import draw_boot, draw_casual_shoe
from loupe.demo.catalogue.goods import draw_backpack, draw_bottle, draw_cap, draw_handbag, draw_tshirt, draw_watch
from loupe.demo.catalogue.items import ItemSpec

Look = Literal["everyday", "catalogue"]
FILL_WIDTH, FILL_HEIGHT = 0.84, 0.80
RING = 0.06
"""Share of the side that stays white in the catalogue look."""

DRAW: dict[str, Callable[[ItemSpec], Drawing]] = {
    "Casual Shoes": draw_casual_shoe,
    "Handbags": draw_handbag,
    "Tshirts": draw_tshirt,
    "Caps": draw_cap,
    "Watches": draw_watch,
    "Backpacks": draw_backpack,
    "Boots": draw_boot,
    "Bottles": draw_bottle,
}
STANDING = frozenset(DRAW) - {"Tshirts", "Watches"}


def _place(
    bounds: tuple[float, float, float, float], *, scale: float, centre: tuple[float, float], turn: float = 0.0
) -> np.ndarray:
    """Matrix [2, 3] that takes object units to pixels with the middle of `bounds` at `centre` (pixels)."""
    left, top, right, bottom = bounds
    cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
    linear = np.array([[cos, -sin], [sin, cos]])
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    return np.hstack([linear, (np.asarray(centre) - linear @ middle)[:, None]])


def _fit(bounds: tuple[float, float, float, float], size_px: int) -> float:
    left, top, right, bottom = bounds
    return size_px * min(FILL_WIDTH / (right - left), FILL_HEIGHT / (bottom - top))


def _soft_spot(size_px: int, *, centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    axis = np.arange(size_px, dtype=np.float32) + 0.5
    spread = ((axis[None, :] - centre[0]) / radii[0]) ** 2, ((axis[:, None] - centre[1]) / radii[1]) ** 2
    return np.exp(-1.2 * (spread[0] ** 1.5 + spread[1]))[..., None]


def _composite(rgba: np.ndarray, background: np.ndarray) -> np.ndarray:
    return rgba[..., :3] + (1 - rgba[..., 3:]) * background


def _to_uint8(picture: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _catalogue(item: ItemSpec, drawing: Drawing, size_px: int, zoom: float) -> np.ndarray:
    bounds = drawing.bounds()
    scale = _fit(bounds, size_px) * zoom
    rgba = rasterise(drawing, matrix=_place(bounds, scale=scale, centre=(size_px / 2, size_px / 2)), size_px=size_px)
    half = scale * (bounds[2] - bounds[0]) / 2
    ground = size_px / 2 + scale * (bounds[3] - bounds[1]) / 2
    depth = 0.5 if item.article_type in STANDING else 0.18
    spot = _soft_spot(size_px, centre=(size_px / 2, ground - 0.01 * size_px), radii=(0.98 * half, 0.05 * size_px))
    axis = np.arange(size_px) + 0.5
    inside = np.clip((np.minimum(axis, size_px - axis) / size_px - RING) / 0.03, 0, 1)
    window = (inside[:, None] * inside[None, :])[..., None]
    return _composite(rgba, 1 - depth * spot * window)


def _everyday(item: ItemSpec, drawing: Drawing, size_px: int) -> np.ndarray:
    rng = np.random.default_rng(item.scene_seed)
    name, kind = choose(rng, colour=item.colour)
    background = paint_backdrop(rng, name=name, kind=kind, size_px=size_px)
    bounds = drawing.bounds()
    scale = _fit(bounds, size_px) * rng.uniform(0.72, 1.04)
    width, height = scale * (bounds[2] - bounds[0]), scale * (bounds[3] - bounds[1])
    standing = item.article_type in STANDING
    turn = rng.normal(0, 0.05 if standing else 0.14)
    low = 0.62 if kind == "table" else 0.5
    room = (max(0.0, size_px - width) / 2, max(0.0, size_px - height) / 2)
    centre = (
        size_px / 2 + 0.7 * room[0] * rng.uniform(-1, 1),
        size_px / 2 + 0.7 * room[1] * rng.uniform(-1 if low == 0.5 else 0, 1),
    )
    mirror = rng.random() < 0.35
    rgba = rasterise(drawing, matrix=_place(bounds, scale=scale, centre=centre, turn=turn), size_px=size_px)
    spot_centre = (centre[0] + 0.03 * size_px, centre[1] + (height / 2 if standing else 0.05 * size_px))
    radii = (0.6 * width, 0.07 * size_px) if standing else (0.62 * width, 0.6 * height)
    spot = _soft_spot(size_px, centre=spot_centre, radii=radii)
    picture = _composite(rgba, background * (1 - rng.uniform(0.25, 0.5) * spot))
    picture = picture[:, ::-1] if mirror else picture
    warmth, brightness = rng.uniform(-0.035, 0.035), rng.uniform(0.92, 1.04)
    return picture * (brightness * np.array([1 + warmth, 1, 1 - warmth], dtype=np.float32))


def render_item(item: ItemSpec, *, look: Look, size_px: int, zoom: float = 1.0) -> np.ndarray:
    """The picture as uint8 [size_px, size_px, 3].

    `zoom` in (0, 1] makes the product smaller in the catalogue look, which leaves more white around it; the everyday
    look draws its own. Equal arguments give equal pixels. Raises ValueError for an unknown look.
    """
    drawing = DRAW[item.article_type](item)
    if look == "catalogue":
        return _to_uint8(_catalogue(item, drawing, size_px, zoom))
    if look == "everyday":
        return _to_uint8(_everyday(item, drawing, size_px))
    raise ValueError(f"look is 'everyday' or 'catalogue', not {look!r}")


def backdrop_of(item: ItemSpec) -> tuple[str, str]:
    """The background colour and kind that the everyday look of this item has."""
    return choose(np.random.default_rng(item.scene_seed), colour=item.colour)
