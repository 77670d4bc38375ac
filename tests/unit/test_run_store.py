"""RunStore returns what is whole, names what is broken, and believes no file that a manifest does not speak for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from loupe.evaluation_records import RealScore
from loupe.run_store import RunStore
from tests.run_fixture import (
    NASTY,
    RUNS,
    Shape,
    complete_run,
    corrupt_run,
    partial_run,
    running_run,
)

SHAPE = Shape()


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """A whole run; tests only read it."""
    return RunStore(complete_run(tmp_path_factory.mktemp("run")))


def test_a_complete_run_is_read_whole_and_without_complaint(complete: RunStore) -> None:
    assert complete.problems() == ()
    assert complete.steps() == (0, 75, 150, 225, 300)
    assert [c.step for c in complete.checkpoints()] == [75, 150, 225, 300]
    assert len(complete.train_curve()) == 300
    samples = list(complete.samples())
    assert len(samples) == 5 * SHAPE.seeds * 5
    assert {s.status for s in samples} == {"whole", "invalid"}


def test_scores_carry_interval_difference_and_counts(complete: RunStore) -> None:
    base, first, *_, last = complete.scores()
    assert base.scores["fd_demo"].diff_base is None
    assert last.scores["fd_demo"].value == pytest.approx(12.9)
    assert last.scores["fd_demo"].lo is None, "a set metric has no interval of its own"
    assert last.scores["fd_demo"].diff_base_lo < last.scores["fd_demo"].diff_base < last.scores["fd_demo"].diff_base_hi
    assert last.scores["clip_demo"].lo < last.scores["clip_demo"].value < last.scores["clip_demo"].hi
    assert (first.n_used, first.n_images, first.n_real, first.invalid_count) == (9, 10, 45, 1)


def test_metrics_name_extractor_null_real_and_target(complete: RunStore) -> None:
    columns = {column.spec.key: column for column in complete.metrics()}
    assert list(columns) == ["fd_demo", "clip_demo", "colour_demo", "background_ok", "is_demo"]
    assert columns["fd_demo"].extractor.name == "demo-classifier"
    assert columns["fd_demo"].null.hi == 11.4
    assert columns["clip_demo"].target == 25.0
    assert columns["clip_demo"].real == RealScore(value=28.4, n=45)


def test_filters_keep_order_and_let_only_the_asked_cells_through(complete: RunStore) -> None:
    cells = complete.samples(prompt_ids={"red_shoes"}, seed_indices={1}, steps={300, 0})
    assert [cell.key for cell in cells] == [("red_shoes", 1, 0), ("red_shoes", 1, 300)]


def test_a_picture_is_found_by_the_hash_in_the_manifest_and_by_nothing_else(complete: RunStore) -> None:
    cell = next(iter(complete.samples(prompt_ids={"red_shoes"})))
    file = complete.sample_file(cell.sha256)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == cell.sha256
    for name in ("red_shoes-0/000000.png", "../params.yaml", "", "0" * 64):
        assert complete.sample_file(name) is None


def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    store = RunStore(complete_run(tmp_path / "run"))
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    manifest = store.paths.samples / "manifest.json"
    content = json.loads(manifest.read_text())
    content["samples"][0] |= {
        "file": "../../../secret.png",
        "sha256": hashlib.sha256(secret.read_bytes()).hexdigest(),
    }
    manifest.write_text(json.dumps(content))
    assert store.sample_file(content["samples"][0]["sha256"]) is None
    assert next(iter(store.samples())).status == "corrupt"


def test_the_reasons_of_broken_pictures_reach_their_cells_and_no_other(tmp_path: Path) -> None:
    store = RunStore(corrupt_run(tmp_path))
    by_key = {cell.key: cell for cell in store.samples()}
    assert by_key["red_shoes", 0, 75].status == "corrupt"
    assert by_key["red_shoes", 0, 75].sha256 is None
    assert by_key["red_shoes", 0, 150].status == "missing"
    assert "dvc checkout" in by_key["red_shoes", 0, 150].reason
    assert by_key["blue_shoes", 1, 75].status == "invalid"
    assert sum(cell.status == "whole" for cell in by_key.values()) == len(by_key) - 3


def test_broken_scores_are_named_with_line_and_column_and_the_others_stay(tmp_path: Path) -> None:
    store = RunStore(corrupt_run(tmp_path))
    scores = {row.step: row.scores for row in store.scores()}
    assert "fd_demo" not in scores[0], "NaN must be absent, not a number"
    assert scores[0]["clip_demo"].value == pytest.approx(18.1)
    assert 300 not in scores, "half a row is left out"
    messages = [f"{p.file} {p.message}" for p in store.problems()]
    assert any("metrics/checkpoints.csv line 2, column fd_demo: 'nan'" in m for m in messages)
    assert any("metrics/checkpoints.csv line 6 has 3 cells" in m for m in messages)
    assert any("metrics/selection.json" in m and "dvc repro --force select" in m for m in messages)
    assert store.selection() is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"foreign,columns\n1,2\n", b"[]"])
@pytest.mark.parametrize("file", ["checkpoints.csv", "per_image.csv", "train.csv", "selection.json", "final.json"])
def test_any_junk_in_a_result_is_a_problem_of_that_file_only(tmp_path: Path, file: str, content: bytes) -> None:
    store = RunStore(complete_run(tmp_path, Shape(steps=(75, 150), seeds=1, size_px=16)))
    (store.paths.metrics / file).write_bytes(content)
    assert {problem.file for problem in store.problems()} == {f"metrics/{file}"}
    assert str(tmp_path) not in " ".join(problem.message for problem in store.problems())


def test_junk_in_params_is_named_and_the_results_stay(tmp_path: Path) -> None:
    store = RunStore(complete_run(tmp_path, Shape(seeds=1, size_px=16)))
    (tmp_path / "params.yaml").write_text("train: [unclosed\n")
    assert store.params() is None
    assert {problem.file for problem in store.problems()} == {"params.yaml"}
    assert len(store.scores()) == 5


def test_while_generate_runs_the_pictures_so_far_are_shown_and_the_rest_wait(tmp_path: Path) -> None:
    store = RunStore(running_run(tmp_path))
    cells = {cell.key: cell for cell in store.samples()}
    assert {cell.step for cell in cells.values()} == {0, 75, 150, 225, 300}
    assert {cell.status for cell in cells.values() if cell.step <= 75} == {"whole"}
    assert {cell.status for cell in cells.values() if cell.step > 75} == {"waiting"}
    shown = cells["red_shoes", 0, 0]
    assert store.sample_file(shown.sha256).name == "000000.png"
    texts = {prompt.prompt_id: prompt.text for prompt in store.prompts()}
    assert texts["val_1000"] == NASTY, "the text of a caption prompt comes from the dataset"


def test_a_half_written_temporary_file_is_not_a_picture(tmp_path: Path) -> None:
    store = RunStore(running_run(tmp_path))
    (store.paths.samples / "red_shoes-0" / ".000300-abc.tmp.png").write_bytes(b"half")
    assert {c.step for c in store.samples(prompt_ids={"red_shoes"}) if c.status == "whole"} == {0, 75}


def test_before_generate_the_expected_cells_wait(tmp_path: Path) -> None:
    cells = list(RunStore(partial_run(tmp_path)).samples())
    assert {cell.status for cell in cells} == {"waiting"}
    assert {cell.step for cell in cells} == {0, 75, 150, 225, 300}


def test_an_empty_folder_has_nothing_and_no_problem(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    assert store.problems() == ()
    assert (store.steps(), store.prompts(), store.scores(), store.train_curve()) == ((), (), (), ())
    assert list(store.samples()) == []


@pytest.mark.parametrize("kind", RUNS)
def test_reading_writes_nothing(tmp_path: Path, kind: str) -> None:
    RUNS[kind](tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    store = RunStore(tmp_path)
    store.problems()
    list(store.samples())
    store.fingerprint()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_fingerprint_changes_with_each_kind_of_result_and_only_then(tmp_path: Path) -> None:
    store = RunStore(running_run(tmp_path))
    before = store.fingerprint()
    store.problems()
    assert store.fingerprint() == before, "reading is no change"
    for file in (
        store.paths.samples / "red_shoes-0" / "000300.png",
        store.paths.samples / "new_prompt-0" / "000000.png",
        store.paths.samples / "manifest.json",
        store.paths.metrics / "train.csv",
        tmp_path / "params.yaml",
        tmp_path / ".dvc" / "tmp" / "rwlock",
    ):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"something new")
        now = store.fingerprint()
        assert now != before, file
        before = now


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    store = RunStore(complete_run(tmp_path, Shape(seeds=1, size_px=16)))
    assert store.selection().step == 300
    selection = store.paths.metrics / "selection.json"
    selection.write_text(selection.read_text().replace('"step": 300', '"step": 225'))
    assert store.selection().step == 225
    selection.unlink()
    assert store.selection() is None
    assert store.problems() == ()
