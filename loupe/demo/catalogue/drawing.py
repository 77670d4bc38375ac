"""A display list of vector shapes, and its anti-aliased rasterisation with Pillow.

Object coordinates: x to the right, y downwards, ground at y = 0, an object is about two units wide. Knows nothing
about products.
"""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from loupe.demo.catalogue.palette import RGB, clip_rgb, shade

SUPERSAMPLING = 3
Light = tuple[tuple[float, ...], ...]
"""Rows of brightness factors spread over the bounding box of a shape."""

TOP_LIT: Light = ((1.10, 1.04), (0.98, 0.92), (0.82, 0.76))
ROUND_LIT: Light = ((0.78, 1.02, 1.16, 1.0, 0.72), (0.74, 0.98, 1.10, 0.95, 0.66))
FLAT_LIT: Light = ((1.03, 0.97),)


@dataclass(frozen=True)
class Fill:
    """A filled polygon: points float [N, 2] in object units; `clip` is the index of an earlier fill that bounds it."""

    points: np.ndarray
    rgb: RGB
    light: Light
    clip: int | None


@dataclass(frozen=True)
class Stroke:
    """An open line: points float [N, 2] and width in object units."""

    points: np.ndarray
    rgb: RGB
    width: float
    clip: int | None


@dataclass
class Drawing:
    """Shapes in painting order."""

    shapes: list[Fill | Stroke] = field(default_factory=list)

    def fill(
        self, points: np.ndarray, rgb: RGB, *, light: Light = TOP_LIT, clip: int | None = None, edge: float = 0.014
    ) -> int:
        """Add a polygon with a darker outline of width `edge` (0: none); returns its index for clipping."""
        self.shapes.append(Fill(points, rgb, light, clip))
        index = len(self.shapes) - 1
        if edge:
            self.stroke(np.vstack([points, points[:1]]), shade(rgb, 0.62), edge, clip=clip)
        return index

    def stroke(self, points: np.ndarray, rgb: RGB, width: float, *, clip: int | None = None) -> None:
        """Add a line."""
        self.shapes.append(Stroke(np.asarray(points, dtype=np.float64), rgb, width, clip))

    def dashes(self, points: np.ndarray, rgb: RGB, *, clip: int | None = None, pitch: float = 0.07) -> None:
        """Add a dashed line (stitching): dashes fill half of each `pitch`."""
        points = np.asarray(points, dtype=np.float64)
        lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
        for start in np.arange(0, lengths[-1], pitch):
            along = np.array([start, min(start + pitch / 2, lengths[-1])])
            ends = np.stack([np.interp(along, lengths, points[:, axis]) for axis in (0, 1)], axis=1)
            self.stroke(ends, rgb, 0.018, clip=clip)

    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of all unclipped shapes, line widths included."""
        low, high = [], []
        for shape in self.shapes:
            if shape.clip is None:
                reach = shape.width / 2 if isinstance(shape, Stroke) else 0.0
                low.append(shape.points.min(axis=0) - reach)
                high.append(shape.points.max(axis=0) + reach)
        (left, top), (right, bottom) = np.min(low, axis=0), np.max(high, axis=0)
        return float(left), float(top), float(right), float(bottom)


def smooth(points: list[tuple[float, float]], *, closed: bool = True, samples: int = 7) -> np.ndarray:
    """Catmull-Rom curve through the points as float [N, 2]; a point given twice in a row is a corner."""
    knots = np.asarray(points, dtype=np.float64)
    padded = np.vstack([knots[-1:], knots, knots[:2]]) if closed else np.vstack([knots[:1], knots, knots[-1:]])
    t = np.linspace(0, 1, samples, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        if np.array_equal(b, c):
            pieces.append(b[None])
            continue
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    if not closed:
        pieces.append(knots[-1:])
    return np.vstack(pieces)


def ellipse(x: float, y: float, rx: float, ry: float, *, start: float = 0.0, stop: float = 2 * np.pi) -> np.ndarray:
    """Points on an ellipse (or an arc of it, angles in radians, clockwise on screen)."""
    angles = np.linspace(start, stop, 40)
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def rounded_box(left: float, top: float, right: float, bottom: float, radius: float) -> np.ndarray:
    """A rectangle with rounded corners."""
    corners = [(right, bottom, 0.0), (left, bottom, 0.5), (left, top, 1.0), (right, top, 1.5)]
    parts = []
    for x, y, turn in corners:
        inner = (x - radius if x == right else x + radius, y - radius if y == bottom else y + radius)
        parts.append(ellipse(*inner, radius, radius, start=turn * np.pi, stop=(turn + 0.5) * np.pi)[::5])
    return np.vstack(parts)


def _gradient(rgb: RGB, light: Light, size: tuple[int, int]) -> Image.Image:
    rows = np.asarray([[(*shade(rgb, factor), 255) for factor in row] for row in light], dtype=np.uint8)
    return Image.fromarray(rows, "RGBA").resize(size, Image.Resampling.BILINEAR)


def _mask(points: np.ndarray, box: tuple[int, int, int, int], width: int | None) -> Image.Image:
    mask = Image.new("L", (box[2] - box[0], box[3] - box[1]))
    local = [(float(x - box[0]), float(y - box[1])) for x, y in points]
    if width is None:
        ImageDraw.Draw(mask).polygon(local, fill=255)
    else:
        ImageDraw.Draw(mask).line(local, fill=255, width=width, joint="curve")
    return mask


def rasterise(drawing: Drawing, *, matrix: np.ndarray, size_px: int) -> np.ndarray:
    """Paint the drawing.

    matrix: float [2, 3], object units to pixels of the final image. Returns float32 [H, W, 4] in [0, 1] with
    *premultiplied*
    colour, so that `rgba[..., :3] + (1 - rgba[..., 3:]) * background` is the composite.
    """
    side = size_px * SUPERSAMPLING
    canvas = Image.new("RGBA", (side, side))
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2])))) * SUPERSAMPLING
    masks: dict[int, tuple[Image.Image, tuple[int, int, int, int]]] = {}
    for index, shape in enumerate(drawing.shapes):
        points = (shape.points @ matrix[:, :2].T + matrix[:, 2]) * SUPERSAMPLING
        width = max(1, round(shape.width * scale)) if isinstance(shape, Stroke) else None
        reach = 1 + (width or 0)
        low = np.maximum(np.floor(points.min(axis=0)).astype(int) - reach, 0)
        high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + reach, side)
        if (high <= low).any():
            continue
        box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        mask = _mask(points, box, width)
        if shape.clip is not None and shape.clip in masks:
            bound, (left, top, _, _) = masks[shape.clip]
            mask = ImageChops.multiply(mask, bound.crop((box[0] - left, box[1] - top, box[2] - left, box[3] - top)))
        if isinstance(shape, Fill):
            masks[index] = (mask, box)
            canvas.paste(_gradient(shape.rgb, shape.light, mask.size), box[:2], mask)
        else:
            canvas.paste((*clip_rgb(np.asarray(shape.rgb)), 255), box, mask)
    rgba = np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float32) / 255
    return np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=-1)
