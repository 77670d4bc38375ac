"""Copies of a picture are found, different pictures are not, and the search agrees with brute force."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from loupe.data.perceptual_hash import MIN_OUTLINE_AGREEMENT, near_pairs, outline, perceptual_hash
from tests.unit.data.photo_files import encoded


def drawing(seed, *, colour=(40, 60, 90)):
    """An irregular dark shape on white with lines of its own, 128 px."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (128, 128), "white")
    draw = ImageDraw.Draw(picture)
    angles = np.arange(7) * 2 * np.pi / 7
    radii = rng.uniform(22, 55, size=7)
    draw.polygon([(64 + r * np.cos(a), 64 + r * np.sin(a)) for r, a in zip(radii, angles, strict=True)], fill=colour)
    for _ in range(6):
        draw.line([tuple(p) for p in rng.integers(48, 80, size=(2, 2)).tolist()], fill=(150, 150, 150), width=5)
    return picture


def moved(picture):
    sheet = Image.new("RGB", picture.size, "white")
    sheet.paste(picture.resize((110, 110), Image.Resampling.LANCZOS), (15, 3))
    return sheet


COPIES = {
    "jpeg": lambda p: Image.open(BytesIO(encoded(p, "JPEG", quality=50))).convert("RGB"),
    "shrunk": lambda p: p.resize((64, 64), Image.Resampling.LANCZOS).resize((128, 128), Image.Resampling.BICUBIC),
    "darker": lambda p: ImageEnhance.Brightness(p).enhance(0.93),
    "moved and smaller": moved,
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_a_copy_is_near_and_its_outline_agrees(copy):
    near = [
        (perceptual_hash(drawing(seed)) ^ perceptual_hash(copy(drawing(seed)))).bit_count() <= 6
        and outline(drawing(seed)) @ outline(copy(drawing(seed))) >= MIN_OUTLINE_AGREEMENT
        for seed in range(20)
    ]
    assert sum(near) >= 18


def test_another_colour_of_the_same_shape_has_the_same_outline():
    agreement = outline(drawing(4)) @ outline(drawing(4, colour=(110, 20, 20)))
    assert agreement > 0.9


def test_different_pictures_do_not_agree():
    outlines = np.stack([outline(drawing(seed)) for seed in range(30)])
    agreement = outlines @ outlines.T - np.eye(30)
    assert agreement.max() < MIN_OUTLINE_AGREEMENT
    assert not near_pairs([perceptual_hash(drawing(seed)) for seed in range(30)], max_bits=4)


def test_a_blank_picture_has_no_hash_and_agrees_with_nothing():
    blank = Image.new("RGB", (64, 64), "white")
    assert perceptual_hash(blank) is None
    assert outline(blank) @ outline(drawing(1)) == 0


@pytest.mark.parametrize("box", [(63, 0, 64, 64), (0, 63, 64, 64), (0, 0, 1, 64), (5, 5, 8, 8), (0, 0, 64, 64)])
def test_a_foreground_of_any_shape_and_place_has_a_hash(box):
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste((0, 0, 0), box)
    value = perceptual_hash(picture)
    assert (value is None) == (box == (0, 0, 64, 64))
    assert value is None or 0 <= value < 2**64


def test_the_search_agrees_with_brute_force():
    rng = np.random.default_rng(0)
    hashes = [int(value) for value in rng.integers(0, 2**63, size=60, dtype=np.uint64)]
    hashes += [hashes[3] ^ 0b101, hashes[7] ^ (1 << 63), None, hashes[3]]
    expected = [
        (i, j, (hashes[i] ^ hashes[j]).bit_count())
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if None not in (hashes[i], hashes[j]) and (hashes[i] ^ hashes[j]).bit_count() <= 2
    ]
    assert near_pairs(hashes, max_bits=2) == expected
    assert {(i, j) for i, j, _ in expected} == {(3, 60), (3, 63), (7, 61), (60, 63)}


def test_no_hashes_have_no_pairs():
    assert near_pairs([], max_bits=4) == near_pairs([None], max_bits=4) == []
