"""A file is read once, read again when it changed, and never believed to be unchanged when that cannot be known."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from loupe.run_files import RunFiles, listing, signatures


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose bytes were hashed, in order."""
    read: list[Path] = []

    def sha256_file(path: Path) -> str:
        read.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr("loupe.run_files.sha256_file", sha256_file)
    return read


def settle(*paths: Path) -> None:
    long_ago = time.time() - 60
    for path in paths:
        os.utime(path, (long_ago, long_ago))


def test_a_settled_file_is_read_once(tmp_path: Path, counted: list[Path]) -> None:
    files, file = RunFiles(tmp_path), tmp_path / "a.bin"
    file.write_bytes(b"one")
    settle(file)
    assert files.sha256(file) == files.sha256(file) == hashlib.sha256(b"one").hexdigest()
    assert counted == [file]


def test_two_changes_within_one_tick_of_the_clock_are_both_seen(tmp_path: Path) -> None:
    files, file = RunFiles(tmp_path), tmp_path / "a.bin"
    file.write_bytes(b"one")
    time_of_change = file.stat().st_mtime_ns
    assert files.sha256(file) == hashlib.sha256(b"one").hexdigest()
    file.write_bytes(b"two")
    os.utime(file, ns=(time_of_change, time_of_change))
    assert files.sha256(file) == hashlib.sha256(b"two").hexdigest(), "same size, same time, other bytes"


def test_hashing_ahead_reads_each_new_file_once_and_minds_no_missing_one(tmp_path: Path, counted: list[Path]) -> None:
    files, paths = RunFiles(tmp_path), [tmp_path / f"{i}.bin" for i in range(12)]
    for path in paths[1:]:
        path.write_bytes(path.name.encode())
    settle(*paths[1:])
    files.hash_ahead(paths)
    files.hash_ahead(paths)
    assert [files.sha256(path) for path in paths[1:]] == [
        hashlib.sha256(p.name.encode()).hexdigest() for p in paths[1:]
    ]
    assert files.sha256(paths[0]) is None
    assert sorted(counted) == sorted(paths[1:])


def test_what_is_derived_is_as_fresh_as_its_source(tmp_path: Path) -> None:
    files, file = RunFiles(tmp_path), tmp_path / "final.json"
    derived: list[str] = []

    def colour() -> str:
        def derive(content: dict) -> str:
            derived.append(content["colour"])
            return content["colour"].upper()

        return files.derived("colour", derive, files.json_object(file, made_by="confirm"))

    for name in ("red", "blue"):
        file.write_text(f'{{"colour": "{name}"}}')
        settle(file)
        assert (colour(), colour()) == (name.upper(), name.upper())
    assert derived == ["red", "blue"]


def test_a_folder_lists_its_names_in_order_and_an_absent_one_nothing(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).write_bytes(name.encode() * 3)
    assert [path.name for path in listing(tmp_path)] == ["a", "b"]
    assert [(name, size) for name, (_, size) in signatures(tmp_path)] == [("a", 3), ("b", 3)]
    (tmp_path / "c").symlink_to(tmp_path / "nowhere")
    assert [name for name, _ in signatures(tmp_path)] == ["a", "b"], "what vanished while it was looked at"
    assert (listing(tmp_path / "none"), signatures(tmp_path / "none")) == ([], [])
