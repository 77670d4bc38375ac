"""A file either is whole or is not there, and a broken one is never believed."""

import hashlib
import json
import math

import pytest
from pydantic import BaseModel, ConfigDict

from loupe.atomic_io import (
    atomic_path,
    empty_folder,
    read_record,
    read_records,
    sha256_file,
    write_csv,
    write_json,
    write_record,
    write_records,
    write_text,
)
from loupe.errors import PipelineError


class Shoe(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    size: int


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def interrupted():
        with atomic_path(target) as path:
            path.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_name_keeps_the_suffix_and_the_file_is_readable_by_others(tmp_path):
    with atomic_path(tmp_path / "new" / "a.png") as path:
        assert path.suffix == ".png"
        path.write_bytes(b"x")
    assert (tmp_path / "new" / "a.png").stat().st_mode & 0o777 == 0o644


def test_a_write_replaces_the_file_and_does_not_edit_it(tmp_path):
    """DVC's cache may hold a hard link to the old one."""
    target, link = tmp_path / "a.txt", tmp_path / "link"
    write_text(target, "old")
    link.hardlink_to(target)
    write_text(target, "new")
    assert (target.read_text(), link.read_text()) == ("new", "old")


def test_json_is_sorted_keeps_umlauts_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": "größer"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "a": "größer",\n "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"fid": math.nan})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": "größer", "b": 1}


def test_csv_leaves_a_value_that_could_not_be_computed_empty(tmp_path):
    write_csv(tmp_path / "a.csv", ["step", "fid"], [{"step": 1, "fid": None}, {"step": 2}, {"step": 3, "fid": 0.5}])
    assert (tmp_path / "a.csv").read_text() == "step,fid\n1,\n2,\n3,0.5\n"


def test_records_come_back_as_they_were_written(tmp_path):
    shoes = [Shoe(name="größer\u2028, \n neu", size=4), Shoe(name="", size=-1)]
    write_record(tmp_path / "one.json", shoes[0])
    write_records(tmp_path / "all.jsonl", shoes)
    assert read_record(tmp_path / "one.json", Shoe, made_by="prepare") == shoes[0]
    assert read_records(tmp_path / "all.jsonl", Shoe, made_by="prepare") == shoes


@pytest.mark.parametrize("content", ["", '{"name": "a"', '{"name": "a"}', '{"name": "a", "size": 1, "more": 2}', "[]"])
def test_a_broken_record_says_how_to_make_it_anew(tmp_path, content):
    (tmp_path / "one.json").write_text(content)
    with pytest.raises(PipelineError, match=r"one\.json cannot be read.*dvc repro --force prepare"):
        read_record(tmp_path / "one.json", Shoe, made_by="prepare")


def test_absent_files_name_the_stage_that_makes_them(tmp_path):
    for read in (read_record, read_records):
        with pytest.raises(PipelineError, match=r"x is not there\. Run: dvc repro encode"):
            read(tmp_path / "x", Shoe, made_by="encode")


def test_a_broken_line_is_named_by_its_number(tmp_path):
    (tmp_path / "all.jsonl").write_text('{"name": "a", "size": 1}\n{"name": "b"}\n')
    with pytest.raises(PipelineError, match=r"all\.jsonl:2: "):
        read_records(tmp_path / "all.jsonl", Shoe, made_by="prepare")


def test_a_truncated_or_damaged_last_line_is_not_believed(tmp_path):
    for damage in (b'{"name": "b", "si', b'{"name": "\xff", "size": 1}\n'):
        (tmp_path / "all.jsonl").write_bytes(b'{"name": "a", "size": 1}\n' + damage)
        with pytest.raises(PipelineError, match=r"all\.jsonl:2: "):
            read_records(tmp_path / "all.jsonl", Shoe, made_by="prepare")


def test_no_records_are_an_empty_file(tmp_path):
    write_records(tmp_path / "all.jsonl", [])
    assert (tmp_path / "all.jsonl").read_bytes() == b""
    assert read_records(tmp_path / "all.jsonl", Shoe, made_by="prepare") == []


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_empty_folder_removes_what_was_there(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("x")
    assert list(empty_folder(tmp_path / "a").iterdir()) == []
