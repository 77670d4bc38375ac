"""Front views of bags, T-shirts, caps, watches and bottles. Pure drawing: an item in, shapes out."""

import numpy as np

from loupe.demo.catalogue.drawing import FLAT_LIT, ROUND_LIT, Drawing, ellipse, rounded_box, smooth
from loupe.demo.catalogue.items import ItemSpec
from loupe.demo.catalogue.palette import shade

METAL = (196, 190, 170)
CENTRE = np.array([0.0, -1.0])
"""Middle of a watch."""


def _lerp(low: float, high: float, gene: float) -> float:
    return low + (high - low) * gene


def draw_handbag(item: ItemSpec) -> Drawing:
    """Tote, satchel with a flap, or bucket bag, with one or two arched handles."""
    g, d = item.genes, Drawing()
    top, height = _lerp(0.62, 0.95, g[0]), _lerp(1.0, 1.35, g[1])
    base = {"bucket": _lerp(0.62, 0.74, g[2])}.get(item.style, _lerp(0.86, 1.0, g[2]))
    reach, rise = _lerp(0.36, 0.52, g[3]), _lerp(0.45, 0.8, g[4])
    handle = shade(item.rgb, 0.72) if g[5] < 0.6 else item.accent_rgb
    for x in (0.06, -0.04) if g[6] > 0.5 else (0.0,):
        arch = [(x - reach, -height + 0.08), (x - 0.8 * reach, -height - 0.7 * rise), (x, -height - rise)]
        arch += [(x + 0.8 * reach, -height - 0.7 * rise), (x + reach, -height + 0.08)]
        d.stroke(smooth(arch, closed=False), shade(handle, 0.6), 0.115)
        d.stroke(smooth(arch, closed=False), handle, 0.08)
    outline = [
        (-base + 0.06, 0),
        (-base + 0.06, 0),
        (-base, -0.12),
        (-0.5 * (base + top), -0.55 * height),
        (-top, -height),
    ]
    outline += [(-top, -height), (0, -height - 0.03), *[(-x, y) for x, y in outline[::-1]]]
    body = d.fill(smooth(outline), item.rgb)
    d.fill(np.array([(-1.2, 0.1), (1.2, 0.1), (1.2, -0.13), (-1.2, -0.13)]), shade(item.rgb, 0.76), clip=body)
    if item.style == "satchel":
        drop = _lerp(0.4, 0.62, g[7]) * height
        lid = [(-1.2, -height - 0.1), (-1.2, -height + 0.5 * drop), (-0.5, -height + drop), (0.5, -height + drop)]
        flap = d.fill(
            smooth([*lid, (1.2, -height + 0.5 * drop), (1.2, -height - 0.1)]), shade(item.rgb, 0.9), clip=body
        )
        d.dashes(
            smooth(
                [(-1.1, -height + 0.45 * drop), (0, -height + drop - 0.05), (1.1, -height + 0.45 * drop)], closed=False
            ),
            shade(item.rgb, 0.55),
            clip=flap,
        )
        d.fill(rounded_box(-0.11, -height + drop - 0.09, 0.11, -height + drop + 0.1, 0.04), METAL)
    else:
        d.stroke(np.array([(-1.1, -height + 0.16), (1.1, -height + 0.16)]), shade(item.rgb, 0.68), 0.04, clip=body)
        if g[8] > 0.4:
            d.fill(rounded_box(-0.4, -0.62 * height, 0.4, -0.18, 0.08), shade(item.rgb, 0.88), clip=body)
        d.fill(ellipse(0, -height + 0.16, 0.07, 0.07), METAL)
    if item.decoration == "band":
        d.stroke(np.array([(-1.2, -0.4 * height), (1.2, -0.4 * height)]), item.accent_rgb, 0.09, clip=body)
    for x in (-reach, reach):
        d.fill(ellipse(x, -height + 0.1, 0.05, 0.05), METAL)
    return d


def draw_backpack(item: ItemSpec) -> Drawing:
    """Rounded pack with a front pocket, a grab loop and shoulder straps showing at the sides."""
    g, d = item.genes, Drawing()
    half, height = _lerp(0.66, 0.8, g[0]), _lerp(1.85, 2.15, g[1])
    strap = shade(item.rgb, 0.6)
    for side in (-1, 1):
        curve = [(side * 0.4, -height + 0.05), (side * (half + 0.16), -0.7 * height), (side * (half + 0.1), -0.16)]
        d.stroke(smooth(curve, closed=False), strap, 0.15)
    d.stroke(ellipse(0, -height + 0.02, 0.19, 0.2, start=np.pi, stop=2 * np.pi), strap, 0.08)
    shoulder = _lerp(0.62, 0.9, g[2])
    outline = [
        (-half + 0.1, 0),
        (-half + 0.1, 0),
        (-half, -0.2),
        (-half, -0.6 * height),
        (-shoulder * half, -0.93 * height),
    ]
    outline += [(0, -height), *[(-x, y) for x, y in outline[::-1]]]
    body = d.fill(smooth(outline), item.rgb)
    split = _lerp(0.46, 0.58, g[3]) * height
    d.stroke(
        smooth([(-1, -split - 0.28), (0, -split - 0.42), (1, -split - 0.28)], closed=False),
        shade(item.rgb, 0.6),
        0.035,
        clip=body,
    )
    tint = shade(item.rgb, 0.84) if item.decoration != "band" else item.accent_rgb
    pocket = d.fill(rounded_box(-0.76 * half, -split, 0.76 * half, -0.16, 0.14), tint)
    d.stroke(
        np.array([(-0.6 * half, -split + 0.17), (0.6 * half, -split + 0.17)]), shade(item.rgb, 0.5), 0.035, clip=pocket
    )
    d.stroke(np.array([(0.5 * half, -split + 0.17), (0.5 * half, -split + 0.34)]), METAL, 0.05)
    if item.style == "roll_top":
        d.fill(rounded_box(-0.8 * half, -height - 0.08, 0.8 * half, -height + 0.22, 0.08), shade(item.rgb, 0.78))
        d.stroke(np.array([(0, -height + 0.22), (0, -split - 0.05)]), strap, 0.09, clip=body)
    elif g[5] > 0.4:
        d.fill(rounded_box(-0.16, -0.84 * height, 0.16, -0.84 * height + 0.16, 0.03), item.accent_rgb)
    if item.decoration == "stripes":
        for x in (-0.42, 0.42):
            d.stroke(np.array([(x * half * 2, 0), (x * half * 2, -height)]), shade(item.rgb, 0.66), 0.06, clip=body)
    return d


def draw_tshirt(item: ItemSpec) -> Drawing:
    """Short sleeves, crew or V neck, sometimes a chest print."""
    g, d = item.genes, Drawing()
    half, length = _lerp(0.55, 0.66, g[0]), _lerp(1.5, 1.75, g[1])
    sleeve, drop = _lerp(0.95, 1.08, g[2]), _lerp(0.48, 0.62, g[3])
    neck = _lerp(0.2, 0.27, g[4])
    dip = _lerp(0.3, 0.42, g[5]) if item.style == "v_neck" else _lerp(0.14, 0.2, g[5])
    d.fill(
        smooth([(-neck, -length), (0, -length - 0.06), (neck, -length), (0, -length + 0.9 * dip)]), shade(item.rgb, 0.5)
    )
    left = [
        (-half, 0),
        (-half, 0),
        (-half * 0.95, -0.6 * length),
        (-half, -length + drop - 0.02),
        (-half, -length + drop - 0.02),
    ]
    left += [
        (-sleeve + 0.14, -length + drop + 0.1),
        (-sleeve + 0.14, -length + drop + 0.1),
        (-sleeve - 0.05, -length + drop - 0.16),
    ]
    left += [(-sleeve - 0.05, -length + drop - 0.16), (-0.72, -length + 0.1), (-neck, -length), (-neck, -length)]
    collar = [(0, -length + dip)] * (2 if item.style == "v_neck" else 1)
    outline = [*left, *collar, *[(-x, y) for x, y in left[::-1]], (0, 0.02)]
    body = d.fill(smooth(outline), item.rgb, light=((0.9, 1.1, 1.05, 0.84), (0.84, 1.04, 1.0, 0.78)))
    rim = [(-neck, -length), *([(-0.5 * neck, -length + 0.6 * dip)] if item.style != "v_neck" else []), *collar]
    rim += [(-x, y) for x, y in rim[-2::-1]] if item.style != "v_neck" else [(neck, -length)]
    d.stroke(smooth(rim, closed=False), shade(item.rgb, 0.72), 0.06)
    for side in (-1, 1):
        d.stroke(
            np.array([(side * half, -length + drop), (side * 0.66, -length + 0.1)]),
            shade(item.rgb, 0.7),
            0.02,
            clip=body,
        )
        cuff = np.array(
            [(side * (sleeve - 0.2), -length + drop + 0.12), (side * (sleeve + 0.02), -length + drop - 0.2)]
        )
        d.stroke(cuff, shade(item.rgb, 0.74), 0.02, clip=body)
    d.stroke(np.array([(-1, -0.09), (1, -0.09)]), shade(item.rgb, 0.74), 0.018, clip=body)
    if item.decoration == "stripes":
        for y in (-0.72, -0.58, -0.44):
            d.stroke(np.array([(-1, y * length), (1, y * length)]), item.accent_rgb, 0.07, clip=body)
    elif item.decoration == "disc":
        d.fill(ellipse(0, -0.58 * length, 0.2, 0.2), item.accent_rgb, light=FLAT_LIT, edge=0)
    elif item.decoration == "chevron":
        d.stroke(
            np.array([(-0.7, -0.62 * length), (0, -0.44 * length), (0.7, -0.62 * length)]),
            item.accent_rgb,
            0.09,
            clip=body,
        )
    return d


def draw_cap(item: ItemSpec) -> Drawing:
    """Baseball cap from the side, brim to the right."""
    g, d = item.genes, Drawing()
    height, back = _lerp(0.86, 1.08, g[0]), -0.92
    brim, droop = _lerp(0.95, 1.15, g[1]), _lerp(0.04, 0.16, g[2])
    dome = [(back, 0), (back, 0), (-0.93, -0.35), (-0.68, -0.82 * height), (-0.15, -height), (0.32, -0.84 * height)]
    crown = d.fill(smooth([*dome, (0.56, -0.4), (0.60, -0.04), (0.60, -0.04), (-0.2, 0.06)]), item.rgb)
    seam = shade(item.rgb, 0.66)
    d.stroke(smooth([(-0.15, -height), (0.16, -0.6 * height), (0.22, 0.1)], closed=False), seam, 0.024, clip=crown)
    d.stroke(smooth([(-0.15, -height), (-0.5, -0.6 * height), (-0.55, 0.1)], closed=False), seam, 0.024, clip=crown)
    d.dashes(smooth([(-0.9, -0.1), (-0.2, -0.04), (0.6, -0.12)], closed=False), shade(item.rgb, 0.55), clip=crown)
    if item.style == "trucker":
        mesh = np.array([(-1.2, 0.2), (-0.24, 0.2), (-0.15, -height - 0.1), (-1.2, -height - 0.1)])
        d.fill(mesh, shade(item.rgb, 0.8), clip=crown)
    if item.decoration == "disc":
        d.fill(ellipse(0.33, -0.44 * height, 0.15, 0.18), item.accent_rgb, light=FLAT_LIT, clip=crown)
    elif item.decoration in ("band", "stripes"):
        d.stroke(smooth([(-1, -0.2), (-0.2, -0.14), (0.65, -0.22)], closed=False), item.accent_rgb, 0.1, clip=crown)
    d.fill(ellipse(-0.15, -height, 0.07, 0.045), seam)
    peak = [
        (0.18, -0.02),
        (0.18, -0.02),
        (0.62, -0.12),
        (0.40 + 0.62 * brim, -0.02 + droop),
        (0.42 + 0.6 * brim, 0.07 + droop),
    ]
    d.fill(smooth([*peak, (0.62, 0.03), (0.25, 0.08)]), shade(item.rgb, 0.86 if g[3] < 0.7 else 1.08))
    return d


def draw_watch(item: ItemSpec) -> Drawing:
    """Wrist watch from the front: a strap in the item's colour, a round or square case, hands."""
    g, d = item.genes, Drawing()
    strap, radius = _lerp(0.25, 0.33, g[0]), _lerp(0.46, 0.56, g[1])
    for side in (-1, 1):
        band = [(-strap, -1.0 + side * 0.3), (-strap, -1.0 + side * 0.3), (-0.8 * strap, -1.0 + side * 0.98)]
        band += [
            (-0.5 * strap, -1.0 + side * 1.03),
            (0.5 * strap, -1.0 + side * 1.03),
            (0.8 * strap, -1.0 + side * 0.98),
        ]
        part = d.fill(
            smooth([*band, (strap, -1.0 + side * 0.3), (strap, -1.0 + side * 0.3)]), item.rgb, light=ROUND_LIT
        )
        if g[2] > 0.5:
            for x in (-0.7 * strap, 0.7 * strap):
                d.dashes(
                    np.array([(x, -1.0 + side * 0.4), (x * 0.85, -1.0 + side * 1.0)]), shade(item.rgb, 0.6), clip=part
                )
        else:
            for y in (0.62, 0.74, 0.86):
                d.fill(ellipse(0, -1.0 + side * y, 0.03, 0.022), shade(item.rgb, 0.5), edge=0, clip=part)
    case = METAL if g[3] < 0.5 else shade(item.rgb, 0.8)
    dial = item.trim_rgb if g[4] < 0.7 else (36, 38, 44)
    mark = (40, 40, 44) if sum(dial) > 380 else (235, 235, 230)
    d.fill(rounded_box(radius - 0.04, -1.07, radius + 0.1, -0.93, 0.03), case)
    if item.style == "square":
        d.fill(rounded_box(-radius, -1.0 - radius, radius, -1.0 + radius, 0.12), case)
        d.fill(rounded_box(-radius + 0.09, -0.91 - radius, radius - 0.09, -1.09 + radius, 0.08), dial, light=FLAT_LIT)
    else:
        d.fill(ellipse(0, -1.0, radius, radius), case)
        d.fill(ellipse(0, -1.0, radius - 0.09, radius - 0.09), dial, light=FLAT_LIT)
    for hour in range(12 if g[5] > 0.4 else 4):
        turn = hour * 2 * np.pi / (12 if g[5] > 0.4 else 4)
        ray = np.array([np.cos(turn), np.sin(turn)])
        d.stroke(np.array([ray * (radius - 0.18), ray * (radius - 0.13)]) + CENTRE, mark, 0.03)
    for turn, length in ((2 * np.pi * g[6], 0.45), (2 * np.pi * g[7], 0.68)):
        hand = np.array([np.cos(turn), np.sin(turn)]) * radius * length
        d.stroke(np.array([(0, 0), hand]) + CENTRE, mark, 0.045)
    return d


def draw_bottle(item: ItemSpec) -> Drawing:
    """Drinking bottle: a cylinder with shoulders, a neck and a cap."""
    g, d = item.genes, Drawing()
    half, height = _lerp(0.38, 0.5, g[0]), _lerp(1.45, 1.7, g[1])
    neck, shoulder = _lerp(0.2, 0.3, g[2]), _lerp(0.16, 0.36, g[3])
    cap = _lerp(0.18, 0.34, g[4])
    lid = item.accent_rgb if g[5] > 0.45 else shade(item.rgb, 0.6)
    if item.style == "loop":
        d.stroke(ellipse(0, -height - cap, 0.2, 0.2, start=np.pi, stop=2 * np.pi), shade(lid, 0.7), 0.08)
    outline = [
        (-half + 0.05, 0),
        (-half + 0.05, 0),
        (-half, -0.1),
        (-half, -height + shoulder + 0.1),
        (-neck, -height),
        (-neck, -height),
    ]
    body = d.fill(smooth([*outline, *[(-x, y) for x, y in outline[::-1]]]), item.rgb, light=ROUND_LIT)
    d.fill(rounded_box(-neck - 0.05, -height - cap, neck + 0.05, -height + 0.03, 0.05), lid, light=ROUND_LIT)
    if item.style == "straw":
        d.stroke(
            np.array([(0.02, -height - cap), (0.02, -height - cap - 0.16), (0.18, -height - cap - 0.22)]),
            shade(lid, 0.8),
            0.08,
        )
    if item.decoration in ("band", "disc"):
        d.fill(
            np.array([(-1, -0.42), (1, -0.42), (1, -0.66), (-1, -0.66)]) * [1, height / 1.3],
            item.accent_rgb,
            light=ROUND_LIT,
            clip=body,
        )
    elif item.decoration == "stripes":
        for y in (0.3, 0.42):
            d.stroke(np.array([(-1, -y * height), (1, -y * height)]), item.accent_rgb, 0.05, clip=body)
    d.stroke(np.array([(-1, -0.07), (1, -0.07)]), shade(item.rgb, 0.6), 0.03, clip=body)
    gloss = np.array([(-0.55 * half, -0.2), (-0.55 * half, -height + shoulder + 0.12)])
    d.stroke(gloss, shade(item.rgb, 1.45), 0.05, clip=body)
    return d
