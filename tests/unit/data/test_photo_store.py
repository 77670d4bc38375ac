"""Photos prepared in parallel: same results for any number of workers, reused by content, never from a broken store."""

import threading
import time

import pytest

from loupe.atomic_io import sha256_file
from loupe.data.items import SourceItem
from loupe.data.photo_store import PhotoPreparer, bounded_map, prepare_photos
from loupe.records import Rejection
from loupe.workstore import WorkStore
from tests.unit.data.photo_files import product


@pytest.fixture
def items(tmp_path):
    made = []
    for seed in range(6):
        path = tmp_path / f"{seed}.png"
        product(seed).save(path)
        made.append(SourceItem(image_id=str(seed), photo=path, caption="a shoe"))
    return made


def prepared(items, root, *, resolution=32, workers=1):
    preparer = PhotoPreparer(resolution=resolution, store=WorkStore(root))
    return list(prepare_photos(items, preparer, workers=workers))


def test_results_do_not_depend_on_the_number_of_workers(items, tmp_path):
    one = prepared(items, tmp_path / "one", workers=1)
    four = prepared(items, tmp_path / "four", workers=4)
    assert [photo.facts for photo in one] == [photo.facts for photo in four]
    assert [photo.item.image_id for photo in four] == [item.image_id for item in items]
    assert all(sha256_file(photo.stored) == photo.facts.sha256 for photo in four)


def test_the_same_bytes_are_prepared_once_and_other_bytes_or_sizes_anew(items, tmp_path):
    first = prepared(items, tmp_path / "store")
    again = prepared(items, tmp_path / "store")
    assert [photo.reused for photo in first] == [False] * 6
    assert [photo.reused for photo in again] == [True] * 6
    assert [photo.facts for photo in again] == [photo.facts for photo in first]
    product(99).save(items[2].photo)
    assert [photo.reused for photo in prepared(items, tmp_path / "store")] == [True, True, False, True, True, True]
    assert not any(photo.reused for photo in prepared(items, tmp_path / "store", resolution=40))


@pytest.mark.parametrize("damage", ["png", "json", "no png"])
def test_a_damaged_entry_is_prepared_anew(items, tmp_path, damage):
    before = prepared(items[:1], tmp_path / "store")[0]
    if damage == "png":
        before.stored.write_bytes(before.stored.read_bytes()[:-7])
    elif damage == "json":
        before.stored.with_suffix(".json").write_text('{"sha256":')
    else:
        before.stored.unlink()
    after = prepared(items[:1], tmp_path / "store")[0]
    assert not after.reused
    assert sha256_file(after.stored) == before.facts.sha256


def test_what_cannot_be_used_is_named_with_its_reason_and_the_rest_goes_on(items, tmp_path):
    items[1].photo.write_bytes(b"")
    items[2].photo.unlink()
    items[3] = SourceItem(image_id="3", photo=items[3].photo, caption="  ")
    results = prepared(items, tmp_path / "store", workers=2)
    assert [r.reason if isinstance(r, Rejection) else "" for r in results] == [
        "",
        "empty file",
        "unreadable",
        "empty caption",
        "",
        "",
    ]


def test_only_a_few_items_are_begun_ahead():
    begun = []
    results = bounded_map(lambda i: begun.append(i) or i, iter(range(1000)), workers=2)
    assert next(results) == 0
    time.sleep(0.05)
    assert len(begun) <= 9
    assert list(results) == list(range(1, 1000))


def test_workers_run_at_the_same_time():
    meeting = threading.Barrier(2, timeout=10)
    assert list(bounded_map(lambda i: meeting.wait() >= 0 and i, range(4), workers=2)) == [0, 1, 2, 3]


def test_an_error_in_a_worker_reaches_the_caller():
    def fail(i):
        if i == 3:
            raise OSError(28, "No space left on device")
        return i

    with pytest.raises(OSError, match="No space"):
        list(bounded_map(fail, range(10), workers=2))
