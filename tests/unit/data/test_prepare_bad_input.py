"""Every mistake gets one clear error that names the place and the mend, exit code 2, and no manifest."""

import pytest

from loupe.errors import PipelineError
from tests.unit.data.photo_files import product, row, write_csv, write_kaggle, write_pairs
from tests.unit.data.prepare_runs import Project


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def refused(project):
    with pytest.raises(PipelineError) as caught:
        project.run()
    assert not (project.paths.dataset / "manifest.json").exists()
    return str(caught.value)


def test_the_command_prints_the_message_bare_and_exits_with_2(project):
    project.configure()
    done = project.command()
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "styles.csv is not there" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project.paths.dataset / "manifest.json").exists()


def test_all_misspelt_parameters_are_named_at_once_with_what_was_meant(project):
    project.configure(resolutoin=64, max_examples=0, malformed_rows="fix", split={"rare_bellow": 3})
    done = project.command()
    assert done.returncode == 2
    assert "data.resolutoin: unknown key; did you mean data.resolution?" in done.stderr
    assert "data.split.rare_bellow: unknown key; did you mean data.split.rare_below?" in done.stderr
    assert "data.max_examples: must be greater than 0 (got 0)" in done.stderr
    assert "data.malformed_rows: must be 'repair' or 'skip' (got 'fix')" in done.stderr


def test_an_unknown_template_field(project):
    write_kaggle(project.source)
    project.configure(caption_template="a {color} shoe")
    assert "did you mean {colour}?" in refused(project)


def test_an_article_type_that_is_not_there(project):
    write_kaggle(project.source)
    project.configure(article_type="Casual Shoe")
    assert "e.g. Casual Shoes" in refused(project)


def test_too_many_photos_that_cannot_be_used_are_named_and_counted(project):
    write_kaggle(project.source, n=40)
    for i in range(25):
        (project.source / "images" / f"{1000 + i}.jpg").write_bytes(b"")
    project.configure()
    message = refused(project)
    assert "1000: empty file: 0 bytes" in message
    assert "and 5 more" in message
    assert "25 of 40 photos (62.5%) is more than data.max_rejected_share (5.0%)" in message


def test_missing_photos_do_not_count_as_rejected(project):
    write_kaggle(project.source, n=100, without_photo=range(0, 100, 2))
    project.configure(max_rejected_share=0.0, split={"group_families": False})
    assert project.run().n_missing == 50


@pytest.mark.parametrize("n", [6, 8])
def test_a_split_with_too_few_images_says_what_to_change(project, n):
    write_pairs(project.source, n=n)
    project.configure(source="pairs")
    message = refused(project)
    assert "at least 2 needed" in message
    assert "data.split" in message


def test_a_split_left_empty_by_missing_photos_says_how_many_are_missing(project):
    write_kaggle(project.source, n=60, without_photo=range(4, 60))
    project.configure()
    assert "The photos of 56 selected rows are missing" in refused(project)


def test_one_single_pair(project):
    write_pairs(project.source, n=1)
    project.configure(source="pairs", split={"group_families": False})
    assert "cannot be shared out" in refused(project)


def test_empty_captions_are_rejected_with_their_id(project):
    write_pairs(project.source, n=20)
    (project.source / "003.txt").write_text("\n")
    project.configure(source="pairs")
    assert [(r.image_id, r.reason) for r in project.run().rejected] == [("003", "empty caption")]


def test_ids_cannot_lead_out_of_the_dataset(project):
    write_kaggle(project.source, n=20)
    with (project.source / "styles.csv").open("a") as file:
        file.write(row("../../escaped") + "\n")
    product(0).save(project.root / "escaped.jpg")
    project.configure()
    assert "'../../escaped' cannot name a file" in refused(project)


def test_duplicate_ids(project):
    write_csv(project.source, [row("1"), row("1")])
    (project.source / "images").mkdir()
    project.configure()
    assert "the same id more than once: 1: line 2, line 3" in refused(project)


def test_orphans_and_bad_text(project):
    write_pairs(project.source, n=20)
    (project.source / "001.png").unlink()
    (project.source / "002.txt").write_bytes(b"\xff\xfe")
    project.configure(source="pairs")
    message = refused(project)
    assert "001.txt has no image" in message
    assert "002.txt is not UTF-8: byte 0 is 0xff" in message


@pytest.mark.parametrize("resolution", [0, 60, 100])
def test_a_resolution_the_vae_cannot_halve_three_times(project, resolution):
    project.configure(resolution=resolution)
    with pytest.raises(PipelineError, match=r"data\.resolution"):
        project.run()
