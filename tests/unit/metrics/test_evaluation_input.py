"""Evaluation on bad input: invalid pictures are counted and excluded, what cannot be believed is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loupe.atomic_io import sha256_file, write_record
from loupe.errors import PipelineError
from loupe.metrics.recompute import recompute_scores
from loupe.nearest_html import nearest_pairs
from loupe.paths import ProjectPaths
from loupe.run_store import RunStore
from loupe.workstore import WorkStore
from stages.confirm import confirm
from stages.evaluate import evaluate
from stages.reference import reference
from stages.select import select
from tests.unit.metrics.evaluation_project import BLACK, KEYS, Run, params, without_best
from tests.unit.metrics.small_run import read_json
from tests.unit.metrics.toy_transformers import write_toy_dinov2


def test_invalid_pictures_are_counted_excluded_and_fail_the_gate(evaluated: Run) -> None:
    evaluated.change_samples(lambda s: s.model_copy(update=BLACK) if (s.step, s.prompt_id) == (10, "p0") else s)
    evaluated.stage(evaluate)
    evaluated.stage(select)
    base, last = evaluated.table("checkpoints.csv")
    assert (base["n_used"], last["n_used"], last["invalid_count"]) == ("6", "4", "2")
    finding = evaluated.finding()
    assert finding.startswith("step-000010 has 4 valid pictures of 6")
    assert not last["fd_demo"], "4 pictures are not compared with 6"
    assert last["fd_demo_diff_base"]
    assert last["kid_demo"]
    assert "needs 6" in evaluated.evaluation().absent["step-000010/fd_demo"]
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
    absent = evaluated.evaluation().absent
    assert set(absent) == {f"step-000010/{key}" for key in KEYS} | {"step-000000/recall_demo_interval"}
    assert "it needs more pictures" in absent["step-000000/recall_demo_interval"]
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
    finding = evaluated.finding()
    assert finding.startswith("the text tower reads only the beginning of: a very long prompt")
    assert finding in capsys.readouterr().out


def test_pictures_that_are_not_those_of_the_manifest_count_as_invalid_and_the_others_are_scored(
    evaluated: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """One has a byte that differs, though its features are known; one is gone, and both are of the checkpoint."""
    before = evaluated.table("checkpoints.csv")
    changed, missing = [s for s in evaluated.samples().samples if s.step == 10][:2]
    content = bytearray((evaluated.paths.samples / changed.file).read_bytes())
    content[-20] ^= 1
    (evaluated.paths.samples / changed.file).write_bytes(bytes(content))
    (evaluated.paths.samples / missing.file).unlink()
    evaluated.stage(evaluate)
    evaluated.stage(select)
    base, last = evaluated.table("checkpoints.csv")
    assert (last["n_used"], last["invalid_count"], base["n_used"]) == ("4", "2", "6")
    assert without_best(base) == without_best(before[0])
    assert last["clip_demo"] != before[1]["clip_demo"]
    unreadable, said = evaluated.evaluation().unreadable, capsys.readouterr().out
    assert set(unreadable) == {changed.file, missing.file}
    assert unreadable[changed.file].startswith("unreadable: changed since it was made (sha256 ")
    assert unreadable[missing.file].startswith("unreadable: No such file or directory, ")
    for file, reason in unreadable.items():
        assert reason.endswith(", and dvc repro --force generate makes it anew")
        assert f"{file} is {reason}" in said
    gates = read_json(evaluated.paths.metrics / "selection.json")["gates_failed"]["step-000010"]
    assert "2 invalid pictures, allowed 0" in gates
    assert not recompute_scores(evaluated.paths).disagreements


def test_a_folder_without_one_picture_of_the_manifest_is_said(evaluated: Run) -> None:
    for sample in evaluated.samples().samples:
        (evaluated.paths.samples / sample.file).unlink()
    with pytest.raises(PipelineError) as caught:
        evaluated.stage(evaluate)
    assert "None of the 12 pictures" in str(caught.value)
    assert "- 12 x unreadable: No such file or directory, and dvc repro --force generate makes it anew" in str(
        caught.value
    )


def test_a_picture_that_cannot_be_read_is_counted_excluded_reported_and_fails_the_gate(
    evaluated: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is no picture, one is grey, one has another size; each is what its manifest says, byte for byte."""
    broken, grey, small = [s for s in evaluated.samples().samples if s.step == 10][:3]
    folder = evaluated.paths.samples
    (folder / broken.file).write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    Image.new("L", (64, 64), 200).save(folder / grey.file)
    Image.new("RGB", (32, 64), (200, 30, 30)).save(folder / small.file)
    files = {sample.file for sample in (broken, grey, small)}
    evaluated.change_samples(
        lambda s: s.model_copy(update={"sha256": sha256_file(folder / s.file)}) if s.file in files else s
    )
    evaluated.stage(evaluate)
    evaluated.stage(select)
    _, last = evaluated.table("checkpoints.csv")
    assert (last["n_images"], last["n_used"], last["invalid_count"]) == ("6", "3", "3")
    rows = {row["file"]: row for row in evaluated.table("per_image.csv")}
    assert rows[broken.file]["invalid_reason"] == "unreadable: cannot be decoded as a picture"
    assert rows[grey.file]["invalid_reason"] == "unreadable: is L; extractors take RGB"
    assert rows[small.file]["invalid_reason"] == "unreadable: is 32 x 64 px, not 64 x 64"
    assert not any(rows[file]["clip"] or rows[file]["nearest_train"] for file in files)
    left = [r for r in rows.values() if r["step"] == "10" and not r["invalid_reason"]]
    assert float(last["clip_demo"]) == pytest.approx(np.mean([float(row["clip"]) for row in left]), abs=1e-6)
    manifest, said = evaluated.evaluation(), capsys.readouterr().out
    assert set(manifest.unreadable) == files
    assert all(f"{file} is unreadable" in said for file in files)
    gates = read_json(evaluated.paths.metrics / "selection.json")["gates_failed"]["step-000010"]
    assert "3 invalid pictures, allowed 0" in gates
    assert not recompute_scores(evaluated.paths).disagreements


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
    assert without_best(after[0]) == without_best(before[0])
    assert float(after[1]["fd_demo"]) != float(before[1]["fd_demo"])
    assert float(after[1]["background_ok"]) == pytest.approx(5 / 6)


def test_backgrounds_tinted_to_235_fail_the_gate(evaluated: Run) -> None:
    def background_gate() -> str:
        evaluated.stage(evaluate)
        evaluated.stage(select)
        return read_json(evaluated.paths.metrics / "selection.json")["gates_failed"].get("step-000010", "")

    assert "background_ok" not in background_gate()

    def tint(sample):
        if sample.step != 10:
            return sample
        path = evaluated.paths.samples / sample.file
        pixels = np.asarray(Image.open(path)).copy()
        pixels[(pixels == 255).all(axis=2)] = 235
        Image.fromarray(pixels).save(path)
        return sample.model_copy(update={"sha256": sha256_file(path)})

    evaluated.change_samples(tint)
    assert "background_ok 0, required 0.9" in background_gate()
    assert evaluated.table("checkpoints.csv")[1]["background_ok"] == "0.0"


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
    pairs = nearest_pairs(RunStore(evaluated.paths.root))
    assert [(p.step, p.photo, p.file, p.distance, p.flagged) for p in pairs[:5]] == [
        (10, row["nearest_train"], row["file"], 0.0, True) for row in rows
    ]
    assert len(pairs) == 12
    assert pairs[5].distance > 0


HEADER = b"step,val_loss,val_loss_diff_base,val_loss_diff_base_lo,val_loss_diff_base_hi,n_images\n"


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (HEADER + b"0,0.5,,,,12\n10,nan,,,,12\n", "cannot be read (line 3: val_loss: Input should be a finite number)"),
        (HEADER + b"\xff", "cannot be read ('utf-8' codec"),
        (HEADER + b"0,0.5,,,,12\n", "has no row of step 10"),
        (None, "is not there"),
    ],
)
def test_without_validation_losses_every_other_score_comes_and_the_file_is_named(
    evaluated: Run, capsys: pytest.CaptureFixture[str], damaged: bytes | None, said: str
) -> None:
    """No table may stay that of the run before beside new ones."""
    before, signs = evaluated.table("checkpoints.csv"), evaluated.table("overfitting.csv")
    curve = evaluated.paths.metrics / "validation.csv"
    if damaged is None:
        curve.unlink()
    else:
        curve.write_bytes(damaged)
    evaluated.stage(evaluate)
    assert [_of_pictures(row) for row in evaluated.table("checkpoints.csv")] == [_of_pictures(row) for row in before]
    assert not evaluated.table("checkpoints.csv")[-1]["val_loss"]
    last = evaluated.table("overfitting.csv")[-1]
    assert last["val_loss"] == last["val_loss_diff_base"] == ""
    assert last["val_loss_t500"] == signs[-1]["val_loss_t500"] != "", "of a file that is whole"
    finding = evaluated.finding()
    assert finding.startswith(f"metrics/validation.csv {said}")
    assert "dvc repro" in finding
    assert finding in capsys.readouterr().out
    assert evaluated.evaluation().absent["step-000010/val_loss"] == finding
    assert not recompute_scores(evaluated.paths).disagreements


def test_losses_by_timestep_that_are_not_there_are_left_out_alone(evaluated: Run) -> None:
    before = evaluated.table("overfitting.csv")
    (evaluated.paths.metrics / "validation_timesteps.csv").unlink()
    evaluated.stage(evaluate)
    finding = evaluated.finding()
    assert finding.startswith("metrics/validation_timesteps.csv is not there")
    kept = [{name: cell for name, cell in row.items() if not name.startswith("val_loss_t")} for row in before]
    assert evaluated.table("overfitting.csv") == kept


def test_a_curve_that_was_lost_after_the_scores_is_a_disagreement_that_names_it(evaluated: Run) -> None:
    (evaluated.paths.metrics / "validation.csv").unlink()
    found = recompute_scores(evaluated.paths).disagreements
    assert found[0].startswith("metrics/validation.csv is not there")
    assert any("step 10, val_loss is 0.49, recomputed absent" in sentence for sentence in found)


def _of_pictures(row: dict[str, str]) -> dict[str, str]:
    return {name: cell for name, cell in row.items() if not name.startswith("val_loss")}


# --- what is refused --------------------------------------------------------------------------------------------------


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
    with pytest.raises(PipelineError, match="Run: dvc repro --force --single-item reference"):
        evaluated.stage(evaluate)


def test_a_settings_file_that_changed_since_the_photos_were_measured_is_refused(evaluated: Run, tmp_path: Path) -> None:
    """Its weights are the same: pictures would be looked at in another way than the photos were."""
    eyes = write_toy_dinov2(tmp_path / "eyes")
    sections = {"evaluate": {"extractors": ["demo", "demo-clip", f"dinov2:{eyes}"]}}
    evaluated.stage(reference, **sections)
    evaluated.stage(evaluate, **sections)
    settings = eyes / "preprocessor_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "image_mean": [0.1, 0.2, 0.3]}))
    with pytest.raises(PipelineError, match=r"other settings files or library versions of eyes@\w+ than there are"):
        evaluated.stage(evaluate, **sections)
    evaluated.stage(reference, **sections)
    evaluated.stage(evaluate, **sections)


def test_samples_of_another_run_are_refused(evaluated: Run) -> None:
    manifest = evaluated.samples()
    other = manifest.base_model.model_copy(update={"name": "other", "sha256": "e" * 64})
    changes = {"base_model": other, "checkpoints_fingerprint": "another", "steps": (0, 99)}
    write_record(evaluated.manifest_path, manifest.model_copy(update=changes))
    with pytest.raises(PipelineError) as caught:
        evaluated.stage(evaluate)
    message = str(caught.value)
    assert "data/samples was drawn in another run: 3 problems" in message
    assert "the base model is other (eeeeeeeeeeee)" in message
    assert "the adapters are of the training another, those of data/checkpoints of f" in message
    assert "the steps are 0, 99, those of data/checkpoints 0, 10" in message
    assert "dvc repro generate" in message


def test_captions_that_the_dataset_does_not_name_are_refused(evaluated: Run) -> None:
    captions = evaluated.paths.dataset / "val" / "captions.jsonl"
    captions.write_text(captions.read_text(encoding="utf-8").replace("photo 1", "photo 7"), encoding="utf-8")
    with pytest.raises(PipelineError, match=r"val.captions\.jsonl does not match the dataset's manifest"):
        evaluated.stage(reference)


def test_missing_and_altered_reference_photos_are_all_named(evaluated: Run) -> None:
    photos = sorted((evaluated.paths.dataset / "val" / "images").glob("*.png"))
    photos[0].unlink()
    photos[1].write_bytes(photos[1].read_bytes() + b"x")
    with pytest.raises(PipelineError) as caught:
        evaluated.stage(reference)
    message = str(caught.value)
    assert "prepared photos: 2 problems" in message
    assert f"{photos[0]}: No such file" in message
    assert f"{photos[1]}: changed since it was made" in message
    assert "dvc repro --force prepare" in message


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
