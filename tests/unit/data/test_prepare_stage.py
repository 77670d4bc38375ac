"""The prepare stage as a whole on small sources: what it writes, what it keeps stable, what it says."""

import json
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from loupe.atomic_io import sha256_file
from loupe.paths import SPLITS
from tests.unit.data.photo_files import encoded, product, row, write_csv, write_kaggle, write_pairs
from tests.unit.data.prepare_runs import Project

NO_FAMILIES = {"group_families": False}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return Project(tmp_path)


def test_a_catalogue_becomes_a_dataset_that_its_manifest_describes(project):
    ids = write_kaggle(project.source, n=40, without_photo=[3, 7])
    project.configure(split=NO_FAMILIES)
    manifest = project.run()
    records = project.records()
    assert sorted(record.image_id for record in records) == sorted(set(ids) - {"1003", "1007"})
    assert (manifest.n_rows, manifest.n_selected, manifest.n_missing) == (40, 40, 2)
    assert manifest.missing_ids == ("1003", "1007")
    assert manifest.n_examples == {split: sum(r.split == split for r in records) for split in SPLITS}
    assert manifest.rejected == ()
    assert sum(manifest.attribute_counts["colour"].values()) == 38
    for record in records:
        assert sha256_file(project.paths.dataset / record.file) == record.sha256
        with Image.open(project.paths.dataset / record.file) as picture:
            assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (64, 64))
    for split in SPLITS:
        assert sha256_file(project.paths.dataset / split / "captions.jsonl") == manifest.captions_sha256[split]
    assert (project.paths.dataset / "report.html").stat().st_size > 1000


def test_captions_follow_the_template_and_records_are_ordered_by_id(project):
    write_kaggle(project.source)
    project.configure(caption_template="a photo of {colour} shoes, {brand} brand, {season}")
    project.run()
    records = [r for r in project.records() if r.split == "train"]
    assert [r.image_id for r in records] == sorted(r.image_id for r in records)
    black = next(r for r in records if r.attributes["colour"] == "Black")
    assert black.caption == "a photo of black shoes, Puma brand, fall"
    assert black.attributes["gender"] == "Men"


def test_metrics_are_flat_counts(project):
    write_kaggle(project.source, n=40, without_photo=[3])
    project.configure(split=NO_FAMILIES)
    manifest = project.run()
    metrics = json.loads((project.paths.metrics / "dataset.json").read_text())
    assert all(isinstance(value, int) for value in metrics.values())
    assert metrics["n_missing"] == 1
    assert metrics["n_train"] == manifest.n_examples["train"]
    assert metrics["n_train"] + metrics["n_val"] + metrics["n_test"] == 39


def test_two_runs_give_the_same_bytes_and_the_second_prepares_nothing(project, capsys):
    write_kaggle(project.source)
    project.configure()
    project.run()
    first = project.contents()
    assert "computed=40 reused=0" in capsys.readouterr().out
    project.run()
    assert project.contents() == first
    assert "computed=0 reused=40" in capsys.readouterr().out


def test_a_missing_or_broken_photo_moves_no_other_photo(project):
    write_kaggle(project.source, n=60)
    project.configure(max_rejected_share=0.5)
    project.run()
    before = {r.image_id: r.split for r in project.records()}
    (project.source / "images" / "1005.jpg").unlink()
    (project.source / "images" / "1010.jpg").write_bytes(b"")
    manifest = project.run()
    after = {r.image_id: r.split for r in project.records()}
    assert after == {name: split for name, split in before.items() if name not in ("1005", "1010")}
    assert manifest.missing_ids == ("1005",)
    assert [(r.image_id, r.reason) for r in manifest.rejected] == [("1010", "empty file")]


def test_max_examples_draws_among_the_photos_that_are_there(project):
    write_kaggle(project.source, n=60, without_photo=range(20))
    project.configure(max_examples=20, split=NO_FAMILIES)
    manifest = project.run()
    assert sum(manifest.n_examples.values()) <= 20
    assert manifest.n_examples["train"] == 14
    drawn = {r.image_id for r in project.records()}
    assert drawn != {str(1020 + i) for i in range(20)}
    project.configure(max_examples=30, split=NO_FAMILIES)
    project.run()
    assert drawn < {r.image_id for r in project.records()}


def test_families_stay_together(project):
    ids = [str(2000 + i) for i in range(60)]
    colours = ("Black", "Brown", "White")
    names = [f"Puma Men Model{i // 3} {colours[i % 3]} Casual Shoes" for i in range(60)]
    write_csv(project.source, [row(n, colour=colours[i % 3], name=names[i]) for i, n in enumerate(ids)])
    (project.source / "images").mkdir()
    for i, name in enumerate(ids):
        product(i).save(project.source / "images" / f"{name}.jpg")
    project.configure(split={"group_families": True})
    project.run()
    split_of = {r.image_id: r.split for r in project.records()}
    assert all(len({split_of[ids[i + k]] for k in range(3)}) == 1 for i in range(0, 60, 3))
    assert set(split_of.values()) == set(SPLITS)


def test_exact_duplicates_are_taken_out_and_named(project):
    write_kaggle(project.source)
    shutil.copy(project.source / "images" / "1000.jpg", project.source / "images" / "1003.jpg")
    project.configure()
    manifest = project.run()
    (rejection,) = manifest.rejected
    assert (rejection.image_id, rejection.reason) == ("1003", "duplicate")
    assert "1003" not in {r.image_id for r in project.records()}


def test_pairs_keep_their_captions_and_say_that_there_are_no_strata(project):
    write_pairs(project.source, n=20)
    product(30).convert("CMYK").save(project.source / "cmyk.jpg")
    (project.source / "cmyk.txt").write_text("größer, {colour}", encoding="utf-8")
    project.configure(source="pairs")
    manifest = project.run()
    captions = {r.image_id: r.caption for r in project.records()}
    assert captions["007"] == "picture number 7"
    assert captions["cmyk"] == "größer, {colour}"
    assert [f.kind for f in manifest.findings] == ["not stratified"]
    assert manifest.attribute_counts == {}


def test_captions_json_gives_the_same_dataset_as_pairs(project):
    write_pairs(project.source, n=20)
    project.configure(source="pairs")
    project.run()
    as_pairs = project.contents()
    (project.source / "images").mkdir()
    captions = {}
    for image in sorted(project.source.glob("*.png")):
        captions[image.name] = image.with_suffix(".txt").read_text()
        image.rename(project.source / "images" / image.name)
    (project.source / "captions.json").write_text(json.dumps(captions))
    project.configure(source="captions-json")
    project.run()
    as_json = project.contents()
    assert {n: c for n, c in as_json.items() if n.endswith((".png", ".jsonl"))} == {
        n: c for n, c in as_pairs.items() if n.endswith((".png", ".jsonl"))
    }


def test_the_demo_source_renders_once_and_is_read_as_a_catalogue(project, capsys):
    pytest.importorskip("loupe.demo.catalogue")
    project.configure(source="demo", root="loupe/demo/catalogue", demo_items=80)
    manifest = project.run()
    assert manifest.source == "demo"
    assert manifest.n_rows == 80
    assert len(manifest.malformed_rows) >= 3
    assert {"Casual Shoes"} == set(manifest.attribute_counts["article_type"])
    first = project.contents()
    catalogues = list((project.root / ".work" / "demo-catalogue").rglob("styles.csv"))
    assert len(catalogues) == 1
    capsys.readouterr()
    project.run()
    assert project.contents() == first
    assert "computed=0" in capsys.readouterr().out


def test_a_killed_rendering_leaves_nothing_that_is_taken_for_whole(project, monkeypatch):
    from loupe.demo import catalogue

    def killed(root, **_):
        (root / "styles.csv").write_text("id\n")
        raise KeyboardInterrupt

    project.configure(source="demo", root="loupe/demo/catalogue", demo_items=60)
    with monkeypatch.context() as patched:
        patched.setattr(catalogue, "write_catalogue", killed)
        with pytest.raises(KeyboardInterrupt):
            project.run()
    assert project.run().n_rows == 60


def test_kill_9_then_the_same_command_gives_the_undisturbed_dataset(project, tmp_path_factory):
    write_kaggle(project.source, n=120)
    project.configure(resolution=256)
    with project.started() as process:
        while not any((project.root / ".work").rglob("*.json")):
            assert process.poll() is None, "the stage ended before it could be killed"
            time.sleep(0.005)
        process.kill()
    assert not (project.paths.dataset / "manifest.json").exists()
    project.run()
    undisturbed = Project(tmp_path_factory.mktemp("undisturbed"))
    shutil.copytree(project.source, undisturbed.source)
    undisturbed.configure(resolution=256)
    undisturbed.run()
    assert project.contents() == undisturbed.contents()


def test_a_stage_that_fails_late_leaves_no_manifest_not_even_the_old_one(project, monkeypatch):
    from loupe.data import report

    write_kaggle(project.source)
    project.configure()
    project.run()

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(report, "write_report", full_disk)
        with pytest.raises(OSError, match="No space"):
            project.run()
    assert not (project.paths.dataset / "manifest.json").exists()
    project.run()


def test_odd_photos_are_prepared_or_named_one_by_one(project):
    write_kaggle(project.source, n=60)
    images = project.source / "images"
    sixteen = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    frames = [product(i) for i in (100, 101)]
    odd = {
        "1000": encoded(product(70), "JPEG")[:-300],
        "1001": b"",
        "1002": encoded(Image.fromarray(sixteen)),
        "1003": encoded(Image.new("RGB", (1, 4000))),
        "1004": encoded(product(71).convert("CMYK"), "JPEG"),
        "1005": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "1006": b"<html>",
    }
    for name, content in odd.items():
        (images / f"{name}.jpg").write_bytes(content)
    project.configure(max_rejected_share=0.2)
    manifest = project.run()
    assert {r.image_id: r.reason for r in manifest.rejected} == {
        "1000": "truncated",
        "1001": "empty file",
        "1003": "extreme shape",
        "1005": "animated",
        "1006": "corrupt",
    }
    prepared = {r.image_id: r for r in project.records()}
    with Image.open(project.paths.dataset / prepared["1002"].file) as grey:
        assert int(np.asarray(grey)[0, 32, 0]) == pytest.approx(129, abs=2)
