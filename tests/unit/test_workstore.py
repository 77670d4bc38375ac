"""The work store: what decides the bytes decides the key, and only finished work is ever found."""

import math
import multiprocessing
from pathlib import Path

import pytest

from loupe.errors import PipelineError
from loupe.workstore import WorkStore, copy_file, fingerprint, library_versions, source_fingerprint


def test_the_fingerprint_follows_values_and_not_their_order():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    different = [{"a": 1}, {"a": 2}, {"a": "1"}, {"b": 1}, {"a": [1]}, {"a": True}, {"a": None}, {}]
    assert len({fingerprint(parts) for parts in different}) == len(different)


@pytest.mark.parametrize("value", [Path("x"), object(), {1, 2}, b"x"])
def test_values_without_a_canonical_form_are_refused(value):
    with pytest.raises(TypeError):
        fingerprint({"a": value})


def test_nan_is_refused():
    with pytest.raises(ValueError, match="JSON compliant"):
        fingerprint({"a": math.nan})


def test_the_source_fingerprint_changes_with_any_file_of_the_folder(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.py").write_text("x = 1\n")
    (tmp_path / "a" / "notes.txt").write_text("not code")
    before = source_fingerprint(tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("still not code")
    assert source_fingerprint(tmp_path / "a") == before
    (tmp_path / "a" / "b" / "c.py").write_text("x = 2\n")
    changed = source_fingerprint(tmp_path / "a")
    (tmp_path / "a" / "b" / "c.py").rename(tmp_path / "a" / "b" / "d.py")
    assert len({before, changed, source_fingerprint(tmp_path / "a")}) == 3


def test_a_single_source_file_has_a_fingerprint_too(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    before = source_fingerprint(tmp_path / "a.py")
    (tmp_path / "a.py").write_text("x = 2\n")
    assert source_fingerprint(tmp_path / "a.py") != before


def test_library_versions_are_the_installed_ones():
    import pydantic

    assert library_versions("pydantic") == {"pydantic": pydantic.VERSION}


def test_an_entry_is_found_once_it_is_whole(tmp_path):
    store = WorkStore(tmp_path)
    key = fingerprint({"a": 1})
    assert store.get("png", key, ".png") is None
    with store.put("png", key, ".png") as path:
        path.write_bytes(b"x")
        assert store.get("png", key, ".png") is None
    assert store.get("png", key, ".png") == tmp_path / "png" / key[:2] / f"{key}.png"
    assert store.get("other", key, ".png") is None


def test_an_interrupted_entry_is_never_found(tmp_path):
    store = WorkStore(tmp_path)

    def interrupted():
        with store.put("png", "ab") as path:
            path.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.get("png", "ab") is None
    assert not [f for f in tmp_path.rglob("*") if f.is_file()]


def _append_under_lock(root: Path, held: multiprocessing.Event, name: str) -> None:
    with WorkStore(root).lock("train", "ab"), (root / "log").open("a") as log:
        log.write(f"{name} in\n")
        log.flush()
        held.set()
        held_long_enough = multiprocessing.Event()
        held_long_enough.wait(0.3)
        log.write(f"{name} out\n")


def test_a_lock_lets_one_process_in_at_a_time(tmp_path):
    context = multiprocessing.get_context("fork")
    first_in, second_in = context.Event(), context.Event()
    first = context.Process(target=_append_under_lock, args=(tmp_path, first_in, "first"))
    first.start()
    assert first_in.wait(30)
    second = context.Process(target=_append_under_lock, args=(tmp_path, second_in, "second"))
    second.start()
    first.join(30)
    second.join(30)
    assert (tmp_path / "log").read_text().split("\n")[:4] == ["first in", "first out", "second in", "second out"]


def test_a_folder_where_the_lock_belongs_is_a_sentence(tmp_path):
    store = WorkStore(tmp_path)
    place = store.path("train", "ab" * 32, ".lock")
    place.mkdir(parents=True)
    with pytest.raises(PipelineError, match=r"\.lock is a folder.*Remove the folder"), store.lock("train", "ab" * 32):
        pass
    place.rmdir()
    with store.lock("train", "ab" * 32):
        pass


def test_a_copy_is_a_file_of_its_own(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    copy_file(tmp_path / "a", tmp_path / "new" / "b")
    (tmp_path / "a").write_bytes(b"y")
    assert (tmp_path / "new" / "b").read_bytes() == b"x"
