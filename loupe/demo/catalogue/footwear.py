"""Side views of casual shoes and boots, toe to the right. Pure drawing: an item in, shapes out."""

import numpy as np

from loupe.demo.catalogue.drawing import FLAT_LIT, Drawing, ellipse, smooth
from loupe.demo.catalogue.items import ItemSpec
from loupe.demo.catalogue.palette import shade

SOLE_LIT = ((1.08, 1.0), (0.86, 0.80))


def _lerp(low: float, high: float, gene: float) -> float:
    return low + (high - low) * gene


def _sole(d: Drawing, item: ItemSpec, *, thickness: float, heel: float, spring: float) -> None:
    if heel > 0:
        block = [(-0.93, -thickness), (-0.93, -thickness), (-0.92, heel), (-0.92, heel), (-0.45, heel), (-0.45, heel)]
        d.fill(smooth([*block, (-0.40, -thickness), (-0.40, -thickness)]), shade(item.trim_rgb, 0.9), light=SOLE_LIT)
    wedge = 0.35 * thickness if item.style == "runner" else 0.0
    outline = [
        (-0.97, -thickness - wedge),
        (-0.97, -thickness - wedge),
        (0.2, -thickness),
        (0.985, -thickness - spring),
    ]
    outline += [(0.985, -thickness - spring), (1.0, -0.6 * thickness - spring), (0.93, -0.8 * spring), (0.55, 0.0)]
    outline += [(-0.90, 0.0), (-0.90, 0.0), (-0.97, -0.35 * thickness)]
    body = d.fill(smooth(outline), item.trim_rgb, light=SOLE_LIT)
    if thickness > 0.09:
        tread = [(-1.1, -0.28 * thickness), (0.5, -0.28 * thickness), (1.1, -0.28 * thickness - spring), (1.1, 0.2)]
        d.fill(np.array([*tread, (-1.1, 0.2)]), shade(item.trim_rgb, 0.55), clip=body, edge=0)
        if item.genes[9] > 0.4:
            line = [(-1.1, -0.72 * thickness - wedge), (0.3, -0.68 * thickness), (1.1, -0.68 * thickness - spring)]
            d.stroke(np.array(line), item.accent_rgb, 0.02, clip=body)


def _panels(d: Drawing, item: ItemSpec, upper: int, *, bottom: float, collar: float, toe: float) -> None:
    dark = shade(item.rgb, 0.78)
    stitch = shade(item.rgb, 0.5) if sum(item.rgb) > 220 else shade(item.rgb, 1.35)
    if item.genes[4] > 0.35:
        edge = _lerp(-0.76, -0.58, item.genes[5])
        counter = smooth([(edge, -bottom), (edge + 0.04, -0.6 * collar), (edge - 0.1, -1.1 * collar)], closed=False)
        tint = item.accent_rgb if item.genes[4] > 0.8 else dark
        d.fill(np.vstack([counter, [(-1.2, -1.1 * collar), (-1.2, -bottom)]]), tint, clip=upper)
        d.dashes(counter + np.array([0.035, 0.0]), stitch, clip=upper)
    if item.genes[6] > 0.3 and item.style not in ("loafer",):
        edge = _lerp(0.48, 0.66, item.genes[7])
        cap = smooth([(edge - 0.05, 0.0), (edge - 0.06, -0.6 * toe), (edge + 0.06, -1.5 * toe)], closed=False)
        white_rubber = item.style in ("sneaker", "high_top") and item.genes[6] > 0.7
        d.fill(np.vstack([cap, [(1.2, -1.5 * toe), (1.2, 0.0)]]), item.trim_rgb if white_rubber else dark, clip=upper)
        d.dashes(cap - [0.035, 0.0], stitch, clip=upper)
    if item.style in ("runner", "skate"):
        wave = [
            (-0.3, -bottom),
            (0.05, -bottom - 0.06),
            (0.4, -bottom - 0.16 - 0.08 * item.genes[8]),
            (1.1, -bottom - 0.1),
        ]
        d.fill(np.vstack([smooth(wave, closed=False), [(1.1, 0.0)]]), shade(item.rgb, 0.7), clip=upper)


def _side_mark(d: Drawing, item: ItemSpec, upper: int, *, bottom: float, height: float) -> None:
    kind = item.decoration
    middle = -bottom - 0.42 * (height - bottom)
    tint = item.accent_rgb
    if kind == "stripes":
        for offset in np.arange(2 + round(item.genes[8])) * 0.15:
            d.stroke(np.array([(-0.42 + offset, -height), (-0.16 + offset, -bottom)]), tint, 0.065, clip=upper)
    elif kind == "band":
        d.stroke(
            smooth([(-1.0, middle), (-0.3, middle + 0.06), (0.5, middle + 0.22)], closed=False), tint, 0.07, clip=upper
        )
    elif kind == "chevron":
        for offset in (0.0, 0.16):
            arm = [(-0.5 + offset, middle - 0.12), (-0.36 + offset, middle), (-0.5 + offset, middle + 0.12)]
            d.stroke(np.array(arm), tint, 0.06, clip=upper)
    elif kind == "disc":
        x = -0.66 if item.style == "high_top" else -0.4
        y = -0.72 * height if item.style == "high_top" else middle + 0.02
        d.fill(ellipse(x, y, 0.11, 0.11), tint, light=FLAT_LIT, clip=upper)


def _laces(
    d: Drawing, item: ItemSpec, upper: int, *, top: tuple[float, float], low: tuple[float, float], sag: float
) -> None:
    middle = ((top[0] + low[0]) / 2 - 0.06, (top[1] + low[1]) / 2 + sag + 0.15)
    front = [(top[0] - 0.1, top[1] - 0.1), (low[0] + 0.3, top[1] - 0.1), (low[0] + 0.06, low[1] - 0.08)]
    back = smooth([(low[0] + 0.03, low[1] + 0.12), middle, (top[0] - 0.14, top[1] + 0.1)], closed=False)
    d.fill(np.vstack([front, back]), shade(item.rgb, 0.84 if item.genes[10] < 0.6 else 1.12), clip=upper)
    count = 4 if item.style != "high_top" else 6
    lace = item.lace_rgb
    for t in np.linspace(0.08, 0.92, count):
        x, y = top[0] + (low[0] - top[0]) * t, top[1] + (low[1] - top[1]) * t + sag * np.sin(np.pi * t)
        d.stroke(np.array([(x + 0.045, y - 0.035), (x - 0.06, y + 0.10)]), lace, 0.042)


def draw_casual_shoe(item: ItemSpec) -> Drawing:
    """Sneaker, high-top, runner, skate shoe, slip-on or loafer."""
    g, d = item.genes, Drawing()
    low_cut = item.style in ("loafer", "slip_on")
    thickness = {"runner": _lerp(0.17, 0.25, g[0]), "loafer": _lerp(0.05, 0.08, g[0])}.get(
        item.style, _lerp(0.11, 0.19, g[0])
    )
    heel = _lerp(0.05, 0.11, g[1]) if item.style == "loafer" else 0.0
    spring = _lerp(0.05, 0.09, g[1]) if item.style == "runner" else 0.02
    collar = thickness + {"high_top": _lerp(0.80, 0.98, g[2])}.get(item.style, _lerp(0.47, 0.60, g[2]))
    dip = _lerp(0.05, 0.16, g[3]) if item.style != "high_top" else _lerp(0.0, 0.06, g[3])
    tongue = collar - dip + (_lerp(0.0, 0.06, g[11]) if low_cut else _lerp(0.12, 0.20, g[11]))
    vamp = thickness + _lerp(0.37, 0.45, g[11])
    toe = thickness + _lerp(0.23, 0.33, g[12])
    tongue_x = _lerp(-0.28, -0.16, g[13]) - (0.08 if item.style == "high_top" else 0.0)
    opening = smooth(
        [
            (-0.90, -collar - 0.03),
            (-0.60, -collar + dip - 0.12),
            (tongue_x, -tongue - 0.01),
            (-0.5, -collar + dip + 0.1),
        ]
    )
    d.fill(opening, shade(item.rgb, 0.42))
    if not low_cut:
        tip = [(tongue_x - 0.1, -tongue + 0.1), (tongue_x - 0.09, -tongue - 0.08), (tongue_x + 0.05, -tongue - 0.07)]
        d.fill(smooth([*tip, (tongue_x + 0.2, -tongue + 0.2)]), shade(item.rgb, 0.88))
    outline = [
        (-0.95, -thickness),
        (-0.95, -thickness),
        (-0.97, -thickness - 0.18),
        (-0.91, -0.8 * collar),
        (-0.92, -collar),
    ]
    outline += [(-0.92, -collar), (-0.58, -collar + dip), (tongue_x, -tongue), (tongue_x, -tongue)]
    bend = 0.13 if item.style == "high_top" else 0.02
    outline += [(0.5 * tongue_x + 0.12, -0.5 * (tongue + vamp) + bend), (0.28, -vamp), (0.60, -toe - 0.05)]
    outline += [(0.87, -0.72 * toe - 0.28 * thickness - spring), (0.97, -0.25 * toe - 0.75 * thickness - spring)]
    outline += [(0.965, -thickness - spring), (0.965, -thickness - spring)]
    upper = d.fill(smooth(outline), item.rgb)
    _panels(d, item, upper, bottom=thickness, collar=collar, toe=toe)
    _side_mark(d, item, upper, bottom=thickness, height=collar)
    if item.style == "loafer":
        strap = smooth([(0.02, -thickness - 0.12), (0.16, -vamp + 0.02), (0.26, -vamp - 0.04)], closed=False)
        d.stroke(strap, shade(item.rgb, 0.66), 0.13, clip=upper)
        seam = smooth([(0.30, -vamp + 0.07), (0.62, -toe + 0.06), (0.93, -thickness - 0.1)], closed=False)
        d.dashes(seam, shade(item.rgb, 0.55), clip=upper)
    elif item.style == "slip_on":
        low = -0.5 * collar - 0.5 * thickness
        gore = np.array([(-0.52, -collar), (-0.20, -collar), (-0.26, low), (-0.42, low)])
        d.fill(gore, item.accent_rgb if g[10] > 0.5 else shade(item.rgb, 0.55), clip=upper)
    else:
        _laces(d, item, upper, top=(tongue_x + 0.03, -tongue + 0.04), low=(0.26, -vamp + 0.02), sag=bend)
    d.stroke(
        smooth([(-0.92, -collar), (-0.58, -collar + dip), (tongue_x, -tongue)], closed=False),
        shade(item.rgb, 0.55),
        0.045,
    )
    _sole(d, item, thickness=thickness, heel=heel, spring=spring)
    return d


def draw_boot(item: ItemSpec) -> Drawing:
    """Lace-up, Chelsea or tall boot: a shaft as high as the foot is long, on a heel."""
    g, d = item.genes, Drawing()
    sole, heel = _lerp(0.08, 0.15, g[0]), _lerp(0.10, 0.24, g[1])
    shaft = {"tall": _lerp(1.75, 2.0, g[2])}.get(item.style, _lerp(1.25, 1.5, g[2]))
    width = _lerp(0.34, 0.42, g[3])
    front = -0.92 + 2 * width
    rim = _lerp(-0.05, 0.08, g[4])
    d.fill(
        smooth([(-0.95, -shaft), (-0.5, -shaft - 0.09), (front, -shaft - rim), (-0.5, -shaft + 0.08)]),
        shade(item.rgb, 0.42),
    )
    outline = [(-0.92, -sole), (-0.92, -sole), (-0.97, -0.35), (-0.88, -0.8), (-0.95, -shaft), (-0.95, -shaft)]
    outline += [(front, -shaft - rim), (front, -shaft - rim), (front - 0.05, -0.85), (0.12, -0.62), (0.55, -0.48)]
    outline += [(0.88, -0.33), (0.96, -sole), (0.96, -sole)]
    upper = d.fill(smooth(outline), item.rgb)
    if g[6] > 0.4:
        cap = smooth([(0.50, 0.0), (0.48, -0.3), (0.58, -0.7)], closed=False)
        d.fill(np.vstack([cap, [(1.2, -0.7), (1.2, 0.0)]]), shade(item.rgb, 0.8), clip=upper)
        d.dashes(cap - [0.035, 0.0], shade(item.rgb, 0.5), clip=upper)
    d.fill(np.array([(-1.1, 0.0), (-0.62, 0.0), (-0.66, -0.55), (-1.1, -0.6)]), shade(item.rgb, 0.8), clip=upper)
    if item.style == "chelsea":
        gore = np.array([(-0.62, -shaft), (-0.3, -shaft), (-0.40, -0.75), (-0.52, -0.75)])
        d.fill(gore, shade(item.rgb, 0.5), clip=upper)
    elif item.style == "lace_up":
        placket = np.array(
            [(front - 0.2, -shaft), (front + 0.2, -shaft), (0.4, -0.5), (0.05, -0.52), (front - 0.24, -0.8)]
        )
        d.fill(placket, shade(item.rgb, 0.78), clip=upper)
        for y in np.linspace(-shaft + 0.1, -0.86, 5 + round(2 * g[7])):
            d.stroke(np.array([(front - 0.22, y + 0.04), (front - 0.01, y - 0.03)]), item.lace_rgb, 0.05)
    else:
        d.stroke(
            np.array([(-1.0, -shaft + 0.16), (front + 0.1, -shaft + 0.14)]), shade(item.rgb, 0.66), 0.07, clip=upper
        )
    if item.decoration in ("band", "stripes"):
        d.stroke(np.array([(-1.0, -0.88), (front + 0.1, -0.84)]), item.accent_rgb, 0.08, clip=upper)
    base = [
        (-0.96, -sole),
        (-0.96, -sole),
        (0.98, -sole),
        (0.98, -sole),
        (0.95, -0.02),
        (0.5, 0.03),
        (-0.3, 0.0),
        (-0.42, 0.0),
    ]
    d.fill(
        smooth([*base, (-0.42, 0.0), (-0.45, heel), (-0.45, heel), (-0.93, heel), (-0.93, heel)]),
        item.trim_rgb,
        light=SOLE_LIT,
    )
    return d
