"""Stages reference, evaluate, select and confirm on a small project: what they write, reuse, refuse, never open."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loupe.atomic_io import read_record, sha256_file, write_record
from loupe.errors import PipelineError
from loupe.evaluation_records import EvaluationManifest, ReferenceManifest
from loupe.metric_specs import METRIC_SPECS, checkpoint_columns
from loupe.params import Params
from loupe.paths import ProjectPaths
from loupe.records import SamplesManifest
from loupe.workstore import WorkStore
from stages.confirm import confirm
from stages.evaluate import evaluate
from stages.reference import reference
from stages.select import select
from tests.unit.diffusion.tiny_checkpoints import write_checkpoints
from tests.unit.metrics.small_run import inside, make_small_run, read_json, small_params, toy_prompts, write_samples

KEYS = (
    "fd_demo", "kid_demo", "cmmd_demo", "precision_demo", "recall_demo", "density_demo", "coverage_demo", "clip_demo",
    "clip_gap_demo", "colour_demo", "colour_share", "colour_top2", "background_ok", "centred_ok", "single_object",
    "sharpness_pct", "memor_share_demo", "diversity_ratio_demo", "vendi_demo", "is_demo",
)  # fmt: skip
STEPS = (0, 10, 20, 30)


def params(**sections: dict) -> Params:
    generate = {"prompts": toy_prompts(6), "val_captions": 0, "seeds_per_prompt": 2}
    return small_params(**{"generate": generate, **sections})


class Run:
    """A small project whose stages have been run up to a point."""

    def __init__(self, root: Path, *, made: bool = False, **options: object) -> None:
        if not made:
            make_small_run(root, **options)
        self.paths, self.store = ProjectPaths(root), WorkStore(root / ".work")

    def stage(self, work, **sections: dict) -> None:
        with inside(self.paths.root):
            work(params(**sections), self.paths, self.store)

    @property
    def manifest_path(self) -> Path:
        return self.paths.samples / "manifest.json"

    def samples(self) -> SamplesManifest:
        return read_record(self.manifest_path, SamplesManifest, made_by="generate")

    def evaluation(self) -> EvaluationManifest:
        return read_record(self.paths.evaluation / "manifest.json", EvaluationManifest, made_by="evaluate")

    def change_samples(self, change) -> None:
        """Rewrite the samples' manifest with `change(sample)` in place of each sample."""
        manifest = self.samples()
        write_record(
            self.manifest_path, manifest.model_copy(update={"samples": tuple(change(s) for s in manifest.samples)})
        )

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.paths.metrics / name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def bytes_of_results(self) -> dict[str, bytes]:
        folders = (self.paths.metrics, self.paths.reference, self.paths.evaluation)
        return {str(f.relative_to(self.paths.root)): f.read_bytes() for folder in folders for f in folder.iterdir()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run up to select; the tests below only read it."""
    done = Run(tmp_path_factory.mktemp("run"))
    for work in (reference, evaluate, select):
        done.stage(work)
    return done


@pytest.fixture(scope="module")
def evaluated_once(tmp_path_factory: pytest.TempPathFactory) -> Run:
    done = Run(tmp_path_factory.mktemp("once"), steps=(0, 10), n_prompts=3)
    done.stage(reference)
    done.stage(evaluate)
    return done


@pytest.fixture
def evaluated(evaluated_once: Run, tmp_path: Path) -> Run:
    """A copy of an evaluated project, to change."""
    shutil.copytree(evaluated_once.paths.root, tmp_path / "run")
    return Run(tmp_path / "run", made=True)


# --- what is written -------------------------------------------------------------------------------------------------


def test_one_row_per_step_with_the_base_first(run: Run) -> None:
    rows = run.table("checkpoints.csv")
    assert [int(row["step"]) for row in rows] == list(STEPS)
    assert list(rows[0]) == checkpoint_columns(KEYS)
    for row in rows:
        assert (row["n_images"], row["n_used"], row["n_real"], row["invalid_count"]) == ("12", "12", "12", "0")
        assert all(row[key] for key in KEYS)
    assert not any(rows[0][f"{key}_diff_base"] for key in KEYS)
    assert all(rows[-1][f"{key}_diff_base_{end}"] for key in KEYS for end in ("lo", "hi"))


def test_scores_follow_the_pictures(run: Run) -> None:
    """The samples come nearer to the photos with every step."""
    rows = run.table("checkpoints.csv")
    distances = [float(row["fd_demo"]) for row in rows]
    assert distances == sorted(distances, reverse=True)
    assert [float(row["background_ok"]) for row in rows] == [0, 0, 0, 1]


def test_aggregates_can_be_recomputed_from_the_pictures(run: Run) -> None:
    pictures = run.table("per_image.csv")
    assert list(pictures[0]) == [
        "step", "prompt_id", "seed_index", "seed", "file", "precision", "density", "clip", "clip_gap", "colour_ok",
        "colour_share", "colour_top2", "background_ok", "centred_ok", "single_object", "sharpness_pct", "memorised",
        "diversity", "background_white_share", "nearest_train", "nearest_train_distance", "invalid_reason",
    ]  # fmt: skip
    assert len(pictures) == len(STEPS) * 12
    for row in run.table("checkpoints.csv"):
        of_step = [picture for picture in pictures if picture["step"] == row["step"]]
        for key, spec in METRIC_SPECS.items():
            if key not in KEYS or spec.level != "image":
                continue
            mean = np.mean([float(picture[spec.image_column]) for picture in of_step if picture[spec.image_column]])
            assert float(row[key]) == pytest.approx(mean, abs=1e-5)


def test_summary_is_flat_and_names_no_extractor_twice(run: Run) -> None:
    summary = read_json(run.paths.metrics / "summary.json")
    rows = run.table("checkpoints.csv")
    assert all(isinstance(value, float | int) for value in summary.values())
    assert summary["step_last"] == 30
    assert summary["cmmd_demo_best"] == min(float(row["cmmd_demo"]) for row in rows[1:])
    assert summary["fd_demo_last"] == float(rows[-1]["fd_demo"])
    assert summary["fd_demo_base"] == float(rows[0]["fd_demo"])
    assert (summary["n_images"], summary["n_prompts"], summary["n_real"]) == (12, 6, 12)
    null = read_record(run.paths.reference / "manifest.json", ReferenceManifest, made_by="reference").nulls["cmmd_demo"]
    assert (null.n_a, null.n_b) == (12, 12)
    assert summary["cmmd_demo_null"] == pytest.approx(null.mean)


def test_every_score_has_its_provenance(run: Run) -> None:
    manifest = run.evaluation()
    assert manifest.metric_keys == KEYS
    assert [info.name for info in manifest.extractors] == ["demo-classifier", "demo-clip"]
    assert manifest.extractors[0].sha256 == sha256_file(run.paths.demo / "classifier" / "model.safetensors")
    assert manifest.samples_sha256 == sha256_file(run.manifest_path)
    assert manifest.targets == {}, "the targets speak of FID, CLIP score and Inception Score; none of these is here"
    assert set(manifest.nulls) == set(KEYS)
    assert set(manifest.controls) == {"noise", "blank white", "real photos, shuffled captions"}
    assert manifest.controls["noise"]["background_ok"] == 0
    assert manifest.controls["blank white"]["background_ok"] == 1
    assert manifest.controls["blank white"]["centred_ok"] == 0 == manifest.controls["noise"]["centred_ok"]
    assert manifest.controls["blank white"]["vendi_demo"] == pytest.approx(1)
    assert "sharpness_pct" not in manifest.controls["blank white"], "there is no product to be sharp"
    assert set(manifest.controls["real photos, shuffled captions"]) == {"clip_demo", "clip_gap_demo", "colour_share"}
    assert set(manifest.real_scores) == {key for key in KEYS if not METRIC_SPECS[key].against_real}
    assert all(sha256_file(run.paths.evaluation / name) == sha256 for name, sha256 in manifest.files.items())


def test_selection_is_backed_by_the_table(run: Run) -> None:
    selection = read_json(run.paths.metrics / "selection.json")
    assert selection["step"] == 30
    assert set(selection["gates_failed"]) >= {"step-000010", "step-000020"}
    assert "background_ok 0, required 0.9" in selection["gates_failed"]["step-000010"]
    assert "12 pictures of 6 prompts against 12 real val photos" in selection["reason"]


def test_overfitting_joins_the_validation_loss_to_the_signs_in_the_pictures(run: Run) -> None:
    rows, scores = run.table("overfitting.csv"), run.table("checkpoints.csv")
    assert [row["val_loss"] for row in rows] == ["0.5", "0.49", "0.48", "0.47"]
    assert rows[0]["val_loss_diff_base"] == ""
    assert float(rows[2]["val_loss_diff_base_lo"]) == pytest.approx(-0.025)
    for row, score in zip(rows, scores, strict=True):
        for key in ("kid_demo", "memor_share_demo", "diversity_ratio_demo"):
            assert [row[f"{key}{end}"] for end in ("", "_lo", "_hi")] == [
                score[f"{key}{e}"] for e in ("", "_lo", "_hi")
            ]
    assert list(rows[0])[:5] == [
        "step",
        "val_loss",
        "val_loss_diff_base",
        "val_loss_diff_base_lo",
        "val_loss_diff_base_hi",
    ]


def test_copied_training_photos_raise_the_share_are_named_and_fail_the_gate(evaluated: Run) -> None:
    photos = sorted((evaluated.paths.dataset / "train" / "images").glob("*.png"))[3:8]
    taken = iter(photos)

    def copy(sample):
        if sample.step != 10 or (photo := next(taken, None)) is None:
            return sample
        shutil.copy(photo, evaluated.paths.samples / sample.file)
        return sample.model_copy(update={"sha256": sha256_file(photo)})

    evaluated.change_samples(copy)
    evaluated.stage(evaluate)
    evaluated.stage(select)
    last = evaluated.table("checkpoints.csv")[-1]
    assert float(last["memor_share_demo"]) == pytest.approx(5 / 6)
    rows = [r for r in evaluated.table("per_image.csv") if r["step"] == "10"][:5]
    assert [r["nearest_train"] for r in rows] == [photo.stem for photo in photos]
    assert all(float(r["nearest_train_distance"]) == 0 for r in rows)
    gates = read_json(evaluated.paths.metrics / "selection.json")["gates_failed"]["step-000010"]
    assert "of the pictures near a training photo" in gates


def test_a_missing_or_broken_validation_curve_is_said(evaluated: Run) -> None:
    curve = evaluated.paths.metrics / "validation.csv"
    curve.write_text("step,val_loss\n0,nan\n", encoding="utf-8")
    with pytest.raises(PipelineError, match="cannot be read"):
        evaluated.stage(evaluate)
    curve.unlink()
    with pytest.raises(PipelineError, match="Run: dvc repro train"):
        evaluated.stage(evaluate)


# --- what is reused --------------------------------------------------------------------------------------------------


def test_a_second_run_loads_no_network_and_writes_the_same_bytes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run.bytes_of_results()
    for loader in ("load_demo_classifier", "load_clip"):
        monkeypatch.setattr(f"loupe.metrics.extractors.{loader}", lambda *_: pytest.fail("a network was loaded"))
    for work in (reference, evaluate, select):
        run.stage(work)
    assert run.bytes_of_results() == before


def test_a_new_checkpoint_costs_only_its_own_pictures(evaluated: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = evaluated.table("checkpoints.csv")
    write_samples(evaluated.paths.samples, steps=(0, 10, 20), prompts=toy_prompts(3), seeds=2)
    capsys.readouterr()
    evaluated.stage(evaluate)
    n_extractors, n_new, n_old, n_texts = 3, 6, 12, 3
    line = f"evaluate: computed={n_extractors * n_new} reused={n_extractors * n_old + n_texts}"
    assert line in capsys.readouterr().out
    assert evaluated.table("checkpoints.csv")[0] == before[0]


def test_what_is_computed_alone_equals_what_is_computed_together(evaluated: Run, tmp_path: Path) -> None:
    """Rows of the store must not depend on which other pictures were missing when they were computed."""
    evaluated.store = WorkStore(tmp_path / "fresh")
    before = evaluated.table("checkpoints.csv")
    evaluated.change_samples(lambda s: s if s.step == 0 or s.prompt_id != "p1" else s.model_copy(update=BLACK))
    evaluated.stage(evaluate)
    write_samples(evaluated.paths.samples, steps=(0, 10), prompts=toy_prompts(3), seeds=2)
    evaluated.stage(evaluate)
    assert evaluated.table("checkpoints.csv") == before


BLACK = {"file": None, "sha256": None, "invalid_reason": "black"}


# --- invalid pictures ------------------------------------------------------------------------------------------------


def test_invalid_pictures_are_counted_excluded_and_fail_the_gate(evaluated: Run) -> None:
    evaluated.change_samples(lambda s: s.model_copy(update=BLACK) if (s.step, s.prompt_id) == (10, "p0") else s)
    evaluated.stage(evaluate)
    evaluated.stage(select)
    base, last = evaluated.table("checkpoints.csv")
    assert (base["n_used"], last["n_used"], last["invalid_count"]) == ("6", "4", "2")
    (finding,) = evaluated.evaluation().findings
    assert finding.startswith("step-000010 has 4 valid pictures of 6")
    assert last["fd_demo"]
    invalid = [row for row in evaluated.table("per_image.csv") if row["invalid_reason"]]
    assert [(row["step"], row["prompt_id"], row["clip"]) for row in invalid] == [("10", "p0", "")] * 2
    gates = read_json(evaluated.paths.metrics / "selection.json")["gates_failed"]
    assert "2 invalid pictures, allowed 0" in gates["step-000010"]


def test_a_checkpoint_without_one_valid_picture_leaves_empty_cells_and_a_reason(evaluated: Run) -> None:
    evaluated.change_samples(lambda s: s.model_copy(update=BLACK) if s.step == 10 else s)
    evaluated.stage(evaluate)
    evaluated.stage(select)
    _, last = evaluated.table("checkpoints.csv")
    assert last["n_used"] == "0"
    assert not any(last[key] for key in KEYS)
    assert set(evaluated.evaluation().absent) == {f"step-000010/{key}" for key in KEYS}
    assert read_json(evaluated.paths.metrics / "selection.json")["verdict"] == "no clear winner"
    assert "fd_demo_last" not in read_json(evaluated.paths.metrics / "summary.json")


def test_no_valid_picture_at_all_is_said(evaluated: Run) -> None:
    evaluated.change_samples(lambda s: s.model_copy(update=BLACK))
    with pytest.raises(PipelineError, match="None of the 12 pictures"):
        evaluated.stage(evaluate)


def test_a_prompt_that_the_text_tower_cuts_is_reported(evaluated: Run, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = evaluated.samples()
    long = manifest.prompts[0].model_copy(update={"text": "a very long prompt " * 20})
    write_record(evaluated.manifest_path, manifest.model_copy(update={"prompts": (long, *manifest.prompts[1:])}))
    evaluated.stage(evaluate)
    (finding,) = evaluated.evaluation().findings
    assert finding.startswith("the text tower reads only the beginning of: a very long prompt")
    assert finding in capsys.readouterr().out


def test_changed_missing_and_unreadable_pictures_are_all_named(evaluated: Run) -> None:
    changed, missing = (evaluated.paths.samples / evaluated.samples().samples[i].file for i in (0, 3))
    content = bytearray(changed.read_bytes())
    content[-20] ^= 1
    changed.write_bytes(bytes(content))
    missing.unlink()
    with pytest.raises(PipelineError) as caught:
        evaluated.stage(evaluate)
    message = str(caught.value)
    assert "2 problems" in message
    assert f"{changed}: changed since it was made" in message
    assert f"{missing}: No such file" in message
    assert "dvc repro --force generate" in message


def test_a_picture_that_cannot_be_decoded_is_named(evaluated: Run) -> None:
    broken = evaluated.paths.samples / evaluated.samples().samples[1].file
    broken.write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    evaluated.change_samples(
        lambda s: (
            s.model_copy(update={"sha256": sha256_file(broken)}) if evaluated.paths.samples / s.file == broken else s
        )
    )
    with pytest.raises(PipelineError, match="cannot be decoded"):
        evaluated.stage(evaluate)


def test_a_changed_picture_changes_the_score(evaluated: Run) -> None:
    before = evaluated.table("checkpoints.csv")
    sample = next(s for s in evaluated.samples().samples if s.step == 10)
    path = evaluated.paths.samples / sample.file
    pixels = np.asarray(Image.open(path)).copy()
    pixels[:] = 235
    Image.fromarray(pixels).save(path)
    evaluated.change_samples(
        lambda s: s.model_copy(update={"sha256": sha256_file(path)}) if s.file == sample.file else s
    )
    evaluated.stage(evaluate)
    after = evaluated.table("checkpoints.csv")
    assert after[0] == before[0]
    assert float(after[1]["fd_demo"]) != float(before[1]["fd_demo"])
    assert float(after[1]["background_ok"]) == pytest.approx(5 / 6)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_missing_extractors_are_said_before_anything_is_read(tmp_path: Path) -> None:
    paths, store = ProjectPaths(tmp_path), WorkStore(tmp_path / ".work")
    for work in (reference, evaluate, confirm):
        with pytest.raises(PipelineError, match="make demo-kit"):
            work(params(), paths, store)


def test_reference_of_other_weights_is_refused(evaluated: Run) -> None:
    from tests.unit.metrics.small_run import write_toy_clip

    config = evaluated.paths.demo / "clip" / "open_clip_model.safetensors"
    config.unlink()
    write_toy_clip(evaluated.paths.demo / "clip", trained=False)
    with pytest.raises(PipelineError, match="Run: dvc repro reference"):
        evaluated.stage(evaluate)


def test_altered_features_are_not_believed(evaluated: Run) -> None:
    file = evaluated.paths.reference / "val-inception.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(PipelineError, match="does not match its manifest"):
        evaluated.stage(evaluate)


def test_select_needs_the_base_and_a_checkpoint(evaluated: Run) -> None:
    table = evaluated.paths.metrics / "checkpoints.csv"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(lines[:2]), encoding="utf-8")
    with pytest.raises(PipelineError, match="only the base model"):
        evaluated.stage(select)
    table.write_text(lines[0] + lines[2], encoding="utf-8")
    with pytest.raises(PipelineError, match="does not begin with the base model"):
        evaluated.stage(select)


# --- the test split --------------------------------------------------------------------------------------------------

_WATCHERS: list[list[str]] = []


def _record_open(event: str, arguments: tuple) -> None:
    if event in ("open", "os.listdir", "os.scandir") and _WATCHERS:
        for watcher in _WATCHERS:
            watcher.append(str(arguments[0]))


sys.addaudithook(_record_open)


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """Collect every path that Python opens or lists."""
    watcher: list[str] = []
    _WATCHERS.append(watcher)
    try:
        yield watcher
    finally:
        _WATCHERS.remove(watcher)


def test_only_confirm_opens_the_test_split(tmp_path: Path, tiny_base_model: Path) -> None:
    run = Run(tmp_path / "run", steps=(0, 10, 20), n_prompts=3)
    source = write_checkpoints(run.paths.checkpoints, tiny_base_model, (10, 20))
    write_record(run.paths.checkpoints / "manifest.json", source.checkpoints)
    test_split = str(run.paths.dataset / "test")
    sections = {
        "model": {"base": str(tiny_base_model), "revision": None},
        "confirm": {"test_captions": 3, "seeds_per_prompt": 2},
    }
    with opened_files() as opened:
        for work in (reference, evaluate, select):
            run.stage(work, **sections)
    assert any(str(run.paths.dataset / "val") in path for path in opened), "the watch sees nothing"
    assert not [path for path in opened if test_split in path]
    with opened_files() as opened:
        run.stage(confirm, **sections)
    assert any(test_split in path for path in opened)
    _check_final(run)


def _check_final(run: Run) -> None:
    final = read_json(run.paths.metrics / "final.json")
    manifest = SamplesManifest.model_validate_json((run.paths.confirmation / "manifest.json").read_bytes())
    selection = read_json(run.paths.metrics / "selection.json")
    assert manifest.steps == (0, selection["step"])
    assert all(prompt.prompt_id.startswith("test_") for prompt in manifest.prompts)
    assert {s.seed for s in manifest.samples}.isdisjoint(s.seed for s in run.samples().samples)
    assert (final["step"], final["verdict"]) == (selection["step"], selection["verdict"])
    assert (final["n_images"], final["n_prompts"], final["n_real"]) == (6, 3, 12)
    assert (final["inception_extractor"], final["clip_extractor"]) == ("demo-classifier", "demo-clip")
    selected, base = final["fd_demo_selected"], final["fd_demo_base"]
    # Each is written with 8 significant digits, i.e. rounded by at most half of 1e-7 of itself.
    assert final["fd_demo_diff"] == pytest.approx(selected - base, abs=1e-7 * (abs(selected) + abs(base)))
    assert final["fd_demo_diff_lo"] <= final["fd_demo_diff_hi"]
    assert final["clip_demo_base_lo"] <= final["clip_demo_base"] <= final["clip_demo_base_hi"]
    assert final["fd_demo_null_n"] == 6
    assert final["background_ok_real"] == 1.0
    assert all(isinstance(value, float | int | str) for value in final.values())
