"""Backgrounds of the everyday look: smooth or large-scale only, painted analytically with soft edges.

No products, no noise.
"""

import numpy as np

from loupe.demo.catalogue.palette import BACKDROPS, shade, vary

KINDS = ("plain", "gradient", "table", "table", "stripes", "circles", "tiles", "spotlight")


def _grid(size_px: int) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px
    return np.meshgrid(axis, axis)


def _step(distance: np.ndarray, softness: float) -> np.ndarray:
    return np.clip(0.5 + distance / softness, 0, 1)[..., None]


def _paint(  # noqa: PLR0911, PLR0917  one return per kind of background
    kind: str, rng: np.random.Generator, x: np.ndarray, y: np.ndarray, base: np.ndarray, other: np.ndarray
) -> np.ndarray:
    flat = np.broadcast_to(base, (*x.shape, 3)).astype(np.float32)
    if kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        mix = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
        return flat + (other - base) * mix
    if kind == "table":
        height = rng.uniform(0.5, 0.72)
        front = other * (0.86 + 0.22 * (y[..., None] - height))
        edge = _step(y - height - rng.uniform(-0.05, 0.05) * (x - 0.5), 0.02)
        return flat * (1 - edge) + front * edge
    if kind == "stripes":
        angle, pitch = rng.choice([0.0, np.pi / 2, np.pi / 4]), rng.uniform(0.2, 0.34)
        wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / pitch + rng.uniform(0, 6))
        return flat + (other - base) * 0.55 * _step(wave, 0.35)
    if kind == "tiles":
        pitch, ox, oy = rng.uniform(0.28, 0.4), rng.uniform(), rng.uniform()
        u, v = (x / pitch + ox) % 1, (y / pitch + oy) % 1
        gap = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v)) * pitch
        return flat + (other - base) * 0.7 * (1 - _step(gap - 0.012, 0.014))
    if kind == "circles":
        for _ in range(int(rng.integers(3, 7))):
            radius = rng.uniform(0.08, 0.24)
            away = np.hypot(x - rng.uniform(0, 1), y - rng.uniform(0, 1))
            flat = flat + (other - base) * rng.uniform(0.25, 0.55) * _step(radius - away, 0.03)
        return flat
    if kind == "spotlight":
        away = np.hypot(x - rng.uniform(0.35, 0.65), y - rng.uniform(0.3, 0.55))
        return flat * np.clip(1.12 - 0.75 * away**2 / 0.5, 0.45, 1.12)[..., None]
    return flat


def choose(rng: np.random.Generator, *, colour: str) -> tuple[str, str]:
    """A background colour (a key of BACKDROPS, never the product's own) and kind."""
    clash = {"navy blue": "blue", "black": "dark"}.get(colour.lower(), colour.lower())
    names = [name for name in BACKDROPS if name != clash]
    return names[int(rng.integers(len(names)))], KINDS[int(rng.integers(len(KINDS)))]


def paint_backdrop(rng: np.random.Generator, *, name: str, kind: str, size_px: int) -> np.ndarray:
    """Float32 [H, W, 3] in [0, 1]; the named colour dominates. Same generator state, same picture."""
    base_rgb = vary(BACKDROPS[name], rng, spread=6)
    other_rgb = shade(
        base_rgb, rng.uniform(1.2, 1.45) if rng.random() < 0.5 or kind == "table" else rng.uniform(0.7, 0.85)
    )
    if kind == "table" and rng.random() < 0.5:
        other_rgb = vary((178, 134, 92), rng)
    x, y = _grid(size_px)
    base, other = (np.asarray(rgb, dtype=np.float32) / 255 for rgb in (base_rgb, other_rgb))
    picture = _paint(kind, rng, x, y, base, other)
    light = 1 + rng.uniform(-0.1, 0.1) * (x - 0.5) + rng.uniform(-0.12, 0.06) * (y - 0.5)
    return np.clip(picture * light[..., None], 0, 0.94).astype(np.float32)
