"""The reader of a training run: what grows is read as far as it goes, and nothing broken is shown."""

import shutil

import pytest

from loupe.run_store import RunStore
from loupe.run_training import (
    preview_prompts,
    previews,
    train_telemetry,
    training_left_s,
    validation_curve,
    validation_timesteps,
)
from tests.run_fixture import Shape, complete_run, validation_loss, write_previews, write_telemetry

SHAPE = Shape(steps=(10, 20))


@pytest.fixture
def store(tmp_path):
    complete_run(tmp_path, SHAPE)
    write_previews(tmp_path, SHAPE, steps=(0, 10))
    return RunStore(tmp_path)


def test_a_project_without_a_run_has_none_of_it(tmp_path):
    store = RunStore(tmp_path)
    assert (validation_curve(store), validation_timesteps(store), train_telemetry(store)) == ((), (), ())
    assert (preview_prompts(store), list(previews(store))) == ((), [])
    assert store.problems() == ()


def test_the_base_has_no_difference_to_itself_and_every_checkpoint_has_one_with_its_interval(store):
    base, *checkpoints = validation_curve(store)
    assert (base.step, base.val_loss_diff_base, base.val_loss_diff_base_lo) == (0, None, None)
    assert [row.step for row in checkpoints] == [10, 20]
    for row in checkpoints:
        assert row.val_loss_diff_base == pytest.approx(row.val_loss - base.val_loss)
        assert row.val_loss_diff_base_lo < row.val_loss_diff_base < row.val_loss_diff_base_hi


def test_the_curve_over_timesteps_has_a_point_per_checkpoint_and_timestep(store):
    rows = validation_timesteps(store)
    assert [(row.step, row.timestep) for row in rows[:9]] == [(0, t) for t in range(62, 1000, 125)] + [(10, 62)]
    assert rows[8].loss == validation_loss(SHAPE, 10, 62)


def test_telemetry_grows_and_may_lack_a_value(store):
    before = store.fingerprint()
    write_telemetry(store.paths.root, SHAPE, until=30)
    assert [row.step for row in train_telemetry(store)] == [5, 10, 15, 20, 25, 30]
    assert store.fingerprint() != before
    store.paths.train_telemetry.write_text("step,images_per_s,elapsed_s,peak_memory_gb\n5,41.5,2.0,\n")
    assert [(row.images_per_s, row.peak_memory_gb) for row in train_telemetry(store)] == [(41.5, None)]


def test_the_time_left_follows_the_telemetry_of_this_very_run(store):
    write_telemetry(store.paths.root, SHAPE, until=30)
    assert training_left_s(store, done=30, total=50) == pytest.approx(0.4 * 20)
    assert training_left_s(store, done=10, total=50) is None
    write_telemetry(store.paths.root, SHAPE, until=5)
    assert training_left_s(store, done=5, total=50) is None


def test_previews_are_found_by_content_and_a_changed_one_is_left_out(store):
    shutil.rmtree(store.paths.samples)
    shown = list(previews(store))
    assert [view.key for view in shown[:3]] == [("black_shoes", 0, 0), ("black_shoes", 0, 10), ("red_shoes", 0, 0)]
    assert [prompt.prompt_id for prompt in preview_prompts(store)] == [
        "black_shoes", "red_shoes", "blue_shoes", "yellow_shoes",
    ]  # fmt: skip
    file = store.sample_file(shown[0].sha256)
    assert file == store.paths.previews / "black_shoes-0" / "0.png"
    file.write_bytes(b"no longer this picture")
    assert [view.key for view in previews(store)] == [view.key for view in shown[1:]]


def test_a_half_written_preview_manifest_is_named_and_shows_nothing(store):
    manifest = store.paths.previews / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:50])
    assert list(previews(store)) == []
    assert ".work/previews/manifest.json" in {problem.file for problem in store.problems()}
