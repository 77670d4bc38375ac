"""Names of artefacts: one layout below the project's folder, and step folders that sort."""

from pathlib import Path

from loupe.paths import ProjectPaths, step_name


def test_every_artefact_lies_below_the_project(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    paths = ProjectPaths(tmp_path)
    names = [name for name, value in vars(ProjectPaths).items() if isinstance(value, property)]
    places = [getattr(paths, name) for name in names]
    assert len(set(places)) == len(places) >= 10
    assert all(place.is_relative_to(tmp_path) and place != tmp_path for place in places)
    assert paths.work == tmp_path / ".work"


def test_the_work_store_is_shared_with_the_repository_that_queued_the_run(monkeypatch):
    monkeypatch.setenv("DVC_ROOT", "parent")
    assert ProjectPaths(Path("copy")).work == Path("parent/.work")
    monkeypatch.setenv("DVC_ROOT", "")
    assert ProjectPaths(Path("copy")).work == Path("copy/.work")


def test_step_folders_sort_by_step():
    names = [step_name(step) for step in (75, 150, 1000)]
    assert names == sorted(names)
    assert names[0] == "step-000075"
