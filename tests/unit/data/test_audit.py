"""The audit: duplicates leave, everything else odd is reported."""

from pathlib import Path

import pytest

from loupe.data.audit import find_oddities, without_duplicates
from loupe.data.items import SourceItem
from loupe.data.photo_store import PhotoFacts, PhotoPreparer, PreparedPhoto
from loupe.workstore import WorkStore
from tests.unit.data.photo_files import encoded, product


def photo(image_id, *, sha256="", size=(64, 64), value=None, notes=(), caption="a shoe", stored=Path("none")):
    facts = PhotoFacts(sha256 or image_id, *size, 0 if value is None else value, list(notes))
    return PreparedPhoto(SourceItem(image_id, Path("x"), caption), stored, facts, reused=False)


def distinct(*photos):
    """Give the photos hashes far apart, so that only what a test is about is found."""
    far = [0, 2**64 - 1, 0x5555555555555555, 0x3333333333333333]
    facts = [PhotoFacts(p.facts.sha256, *_size(p), v, p.facts.notes) for p, v in zip(photos, far, strict=False)]
    return [PreparedPhoto(p.item, p.stored, f, p.reused) for p, f in zip(photos, facts, strict=True)]


def _size(p):
    return p.facts.source_width_px, p.facts.source_height_px


def oddities(photos, *, resolution=64, bits=0, split="train"):
    split_of = {p.item.image_id: split for p in photos}
    return find_oddities(photos, split_of=split_of, resolution=resolution, near_duplicate_bits=bits)


def test_of_equal_pictures_the_first_id_stays():
    kept, rejected = without_duplicates(
        [photo("c", sha256="s"), photo("b"), photo("a", sha256="s"), photo("d", sha256="s")]
    )
    assert [p.item.image_id for p in kept] == ["a", "b"]
    assert [(r.image_id, r.reason, r.detail) for r in rejected] == [
        ("c", "duplicate", "same picture as a, which is kept"),
        ("d", "duplicate", "same picture as a, which is kept"),
    ]


@pytest.mark.parametrize(
    ("size", "found"), [((31, 20), True), ((32, 32), False), ((20, 32), False), ((200, 100), False)]
)
def test_photos_enlarged_more_than_twice_are_found(size, found):
    findings = oddities([photo("a", size=size)])
    assert [f.kind for f in findings] == (["enlarged"] if found else [])


def test_long_captions_unusable_profiles_and_blank_pictures_are_found():
    long, noted, fine = distinct(photo("a", caption="shoe " * 76), photo("b", notes=["no profile"]), photo("c"))
    blank = PreparedPhoto(photo("d").item, Path("none"), PhotoFacts("d", 64, 64, None, []), reused=False)
    findings = oddities([long, noted, fine, blank])
    assert [(f.kind, f.image_ids) for f in findings] == [
        ("long caption", ("a",)),
        ("blank", ("d",)),
        ("colour profile", ("b",)),
    ]
    assert findings[0].detail == "78 tokens; only the first 77 are read"


def test_a_caption_of_exactly_77_tokens_is_fine():
    assert not oddities([photo("a", caption="shoe " * 75)])


def test_a_recompressed_copy_is_a_near_duplicate_and_across_splits_comes_first(tmp_path):
    contents = {
        "a": encoded(product(1, (64, 64))),
        "b": encoded(product(1, (64, 64)), "JPEG", quality=60),
        "c": encoded(product(2, (64, 64))),
        "d": encoded(product(2, (64, 64)), "JPEG", quality=60),
        "e": encoded(product(3, (64, 64))),
    }
    preparer = PhotoPreparer(resolution=64, store=WorkStore(tmp_path / "store"))
    photos = []
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        photos.append(preparer(SourceItem(name, tmp_path / name, "a shoe")))
    split_of = {"a": "train", "b": "train", "c": "train", "d": "test", "e": "val"}
    findings = find_oddities(photos, split_of=split_of, resolution=64, near_duplicate_bits=4)
    assert [(f.kind, f.image_ids) for f in findings] == [
        ("near-duplicate across splits", ("c", "d")),
        ("near-duplicate", ("a", "b")),
    ]
    assert findings[0].detail.startswith("train and test; hashes differ in ")


def test_equal_hashes_without_equal_outlines_are_no_near_duplicates(tmp_path):
    """All products of one shape have near hashes: the outlines must confirm."""
    photos = []
    for seed in (1, 2):
        path = tmp_path / f"{seed}.png"
        product(seed, (64, 64)).save(path)
        photos.append(photo(str(seed), value=5, stored=path))
    assert not oddities(photos, bits=4)
