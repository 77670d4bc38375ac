"""Damaged features and pictures, and photos of another size: said or mended, never believed and never a traceback."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loupe.atomic_io import read_record, read_records, sha256_file, write_record, write_records
from loupe.errors import PipelineError
from loupe.metrics.images import ImageFile, UnreadableImageError, read_pixels
from loupe.records import CaptionRecord, DatasetManifest
from stages.evaluate import evaluate
from stages.reference import reference
from tests.unit.metrics.evaluation_project import Run

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return SIGNATURE + header + extra + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


DAMAGED = {
    "header of another length": SIGNATURE + struct.pack(">I", 5) + b"IHDR12345" + b"\0" * 4,
    "far too large": png(60000, 60000),
    "too much text": png(64, 64, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 3_000_000))),
    "too few pixels": png(64, 64),
    "nothing": b"",
}


def test_damaged_features_are_computed_anew_and_change_no_score(evaluated: Run) -> None:
    before = evaluated.bytes_of_results()
    for shard in (evaluated.paths.root / ".work" / "features").rglob("*.safetensors"):
        content = bytearray(shard.read_bytes())
        for at in range(8 + int.from_bytes(content[:8], "little") + 3, len(content), 64):
            content[at] ^= 1
        shard.write_bytes(bytes(content))
    evaluated.stage(evaluate)
    after = evaluated.bytes_of_results()
    tables = [name for name in before if name.endswith(".csv")]
    assert len(tables) > 3
    assert [name for name in tables if after[name] != before[name]] == []


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_picture_is_unreadable_with_a_reason(tmp_path: Path, name: str) -> None:
    path = tmp_path / "damaged.png"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(UnreadableImageError, match=r"damaged\.png cannot be decoded as a picture") as caught:
        read_pixels(ImageFile(path, sha256_file(path)))
    assert caught.value.reason == "cannot be decoded as a picture"


def test_whatever_bytes_change_a_picture_is_read_or_unreadable(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "fuzz.png"
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    whole, n_unreadable = path.read_bytes(), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(1500):
            content = bytearray(whole)
            for at in rng.integers(8, 60, rng.integers(1, 4)):
                content[at] = rng.integers(256)
            path.write_bytes(bytes(content))
            try:
                read_pixels(ImageFile(path, ""))
            except UnreadableImageError:
                n_unreadable += 1
    assert n_unreadable > 500


def test_lack_of_memory_is_not_the_pictures_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MemoryError):
        read_pixels(ImageFile(tmp_path / "any.png", ""))


def test_a_picture_with_a_damaged_header_is_counted_and_excluded(evaluated: Run) -> None:
    sample = next(sample for sample in evaluated.samples().samples if sample.step == 10)
    path = evaluated.paths.samples / sample.file
    content = path.read_bytes()
    path.write_bytes(content[:11] + b"\x05" + content[12:])
    evaluated.change_samples(
        lambda s: s.model_copy(update={"sha256": sha256_file(path)}) if s.file == sample.file else s
    )
    evaluated.stage(evaluate)
    assert evaluated.table("checkpoints.csv")[-1]["invalid_count"] == "1"
    assert set(evaluated.evaluation().unreadable) == {sample.file}


def change_val_photos(run: Run, *changes: Callable[[Path], object]) -> list[Path]:
    """Change the first photos of the split; every manifest says what they are now."""
    captions = run.paths.dataset / "val" / "captions.jsonl"
    records = read_records(captions, CaptionRecord, made_by="prepare")
    paths = [run.paths.dataset / record.file for record in records]
    for path, change in zip(paths, changes, strict=False):
        change(path)
    hashed = [r.model_copy(update={"sha256": sha256_file(path)}) for r, path in zip(records, paths, strict=True)]
    write_records(captions, hashed)
    manifest = read_record(run.paths.dataset / "manifest.json", DatasetManifest, made_by="prepare")
    hashes = {**manifest.captions_sha256, "val": sha256_file(captions)}
    write_record(run.paths.dataset / "manifest.json", manifest.model_copy(update={"captions_sha256": hashes}))
    return paths[: len(changes)]


def test_photos_of_another_size_are_all_named(evaluated: Run) -> None:
    wide, small, broken = change_val_photos(
        evaluated,
        lambda path: Image.new("RGB", (96, 64), (9, 9, 9)).save(path),
        lambda path: Image.new("RGB", (32, 32), (9, 9, 9)).save(path),
        lambda path: path.write_bytes(DAMAGED["header of another length"]),
    )
    with pytest.raises(PipelineError) as caught:
        evaluated.stage(reference)
    message = str(caught.value)
    assert "prepared photos: 3 problems" in message
    assert f"{wide}: 96 x 64 px, not 64 x 64" in message
    assert f"{small}: 32 x 32 px, not 64 x 64" in message
    assert f"{broken}: cannot be decoded as a picture" in message
    assert "dvc repro --force prepare" in message
