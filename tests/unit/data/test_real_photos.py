"""The published figures of the Kaggle catalogue, and its real photos, where they are at hand."""

from collections import Counter

import pytest

from loupe.data.captions import parse_template
from loupe.data.catalogue_source import read_catalogue
from loupe.data.dataset import plan_split
from tests.unit.data.prepare_runs import Project

pytestmark = pytest.mark.photos
SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}


def listing_of(root, malformed_rows):
    template = parse_template("a photo of {colour} casual shoes")
    return read_catalogue(root, article_type="Casual Shoes", malformed_rows=malformed_rows, template=template)


def plan(items, **options):
    return plan_split(
        items, shares=SHARES, stratify_by="colour", rare_below=10, seed=42, **{"group_families": False, **options}
    ).split_of


def counts(items, split_of, split, attribute):
    return Counter(i.attributes[attribute] for i in items if split_of[i.image_id] == split)


def test_rows_and_shoes_when_repaired_and_when_skipped(shared_photos):
    repaired, skipped = (listing_of(shared_photos, how) for how in ("repair", "skip"))
    assert (repaired.n_rows, len(repaired.items), len(repaired.malformed_rows)) == (44_446, 2_846, 22)
    assert (skipped.n_rows, len(skipped.items), len(skipped.malformed_rows)) == (44_446, 2_845, 22)
    assert {row.action for row in repaired.malformed_rows} == {"repaired"}
    assert {row.action for row in skipped.malformed_rows} == {"skipped"}
    added = {i.image_id for i in repaired.items} - {i.image_id for i in skipped.items}
    assert added == {"4854"}


def test_the_documented_split_to_the_unit(shared_photos):
    items = listing_of(shared_photos, "skip").items
    split_of = plan(items)
    assert Counter(split_of.values()) == {"train": 1_991, "val": 427, "test": 427}
    colours = counts(items, split_of, "train", "colour")
    assert [(c, colours[c]) for c in ("Black", "Brown", "White", "Grey", "Blue")] == [
        ("Black", 612),
        ("Brown", 358),
        ("White", 304),
        ("Grey", 130),
        ("Blue", 126),
    ]
    assert counts(items, split_of, "train", "gender") == {
        "Men": 1_583,
        "Women": 230,
        "Unisex": 151,
        "Boys": 19,
        "Girls": 8,
    }
    assert counts(items, split_of, "train", "season") == {"Summer": 979, "Fall": 624, "Winter": 296, "Spring": 92}


def test_families_of_the_real_catalogue_never_straddle_and_shares_hold(shared_photos):
    items = listing_of(shared_photos, "repair").items
    split_of = plan(items, group_families=True)
    splits_of_family = {}
    for item in items:
        splits_of_family.setdefault(item.attributes.get("family"), set()).add(split_of[item.image_id])
    splits_of_family.pop(None, None)
    assert len(splits_of_family) > 900
    assert all(len(splits) == 1 for splits in splits_of_family.values())
    sizes = Counter(split_of.values())
    assert abs(sizes["train"] - 1_992) <= 5
    assert abs(sizes["val"] - 427) <= 5
    black = [counts(items, split_of, split, "colour")["Black"] / sizes[split] for split in SHARES]
    assert max(black) - min(black) < 0.02


def test_brands_are_recognised(shared_photos):
    brands = Counter(i.attributes.get("brand", "") for i in listing_of(shared_photos, "repair").items)
    assert brands["Puma"] > 300
    assert brands["Red Tape"] > 100
    assert brands["United Colors of Benetton"] > 40
    assert brands[""] < 10


def test_three_hundred_real_shoes_are_prepared(shared_photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    project.configure(root=str(shared_photos), malformed_rows="skip", split={"group_families": False})
    manifest = project.run()
    assert sum(manifest.n_examples.values()) == 300
    assert manifest.n_missing == 2_545
    assert manifest.rejected == ()
    items = listing_of(shared_photos, "skip").items
    documented = plan(items)
    assert all(documented[record.image_id] == record.split for record in project.records())
