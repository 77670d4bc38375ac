"""`verify` agrees with an untouched run, and says what differs, and by how much, after one thing moved."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from loupe import cli
from loupe.atomic_io import sha256_file
from loupe.errors import PipelineError
from loupe.metrics.evaluation import RESAMPLES
from loupe.metrics.recompute import recompute_scores
from loupe.paths import ProjectPaths
from stages.select import select
from tests.unit.metrics.evaluation_project import Run
from tests.unit.metrics.small_run import ROOT, inside

Table = list[dict[str, str]]


def rewrite(path: Path, change: Callable[[Table], Table]) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = change(list(reader))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, reader.fieldnames or [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def verify(run: Run) -> None:
    with inside(run.paths.root):
        cli.main(["--params", str(ROOT / "params.yaml"), "verify"])


def test_an_untouched_run_agrees(evaluated: Run, capsys: pytest.CaptureFixture[str]) -> None:
    verify(evaluated)
    said = capsys.readouterr().out
    assert "numbers in metrics/ and in the manifests of data/ agree" in said
    assert int(said.splitlines()[-1].split()[0]) > 500


@pytest.mark.parametrize("column", ["fd_demo", "clip_demo_hi", "kid_demo_diff_base_lo", "recall_demo_diff_best"])
def test_one_number_that_moved_is_named_with_both_values(
    evaluated: Run, column: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = evaluated.paths.metrics / "checkpoints.csv"
    before = evaluated.table("checkpoints.csv")
    row = next(i for i, cells in enumerate(before) if cells[column])
    value = float(before[row][column])

    def change(rows: Table) -> Table:
        rows[row][column] = repr(value + 0.125)
        return rows

    rewrite(table, change)
    with pytest.raises(SystemExit) as ended:
        verify(evaluated)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"checkpoints.csv: step {before[row]['step']}, {column} is {value + 0.125:.8g}" in said
    assert f"recomputed {value:.8g} (differs by 0.125)" in said


def test_one_feature_that_moved_changes_the_scores_of_its_checkpoint_only(evaluated: Run) -> None:
    path = evaluated.paths.evaluation / "step-000010-inception.safetensors"
    arrays = load_file(path)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    arrays["features"][0, 0] += 5.0
    save_file(arrays, path, metadata=metadata)
    found = recompute_scores(evaluated.paths).disagreements
    assert found[0] == "data/evaluation/step-000010-inception.safetensors: changed since the manifest was written"
    assert any(line.startswith("checkpoints.csv: step 10, fd_demo is ") and "differs by" in line for line in found)
    assert not any("step 0, fd_demo is" in line or "step 0, clip_demo" in line for line in found)


def test_rows_that_are_gone_doubled_or_foreign_are_named(evaluated: Run) -> None:
    def change(rows: Table) -> Table:
        foreign = {**rows[-1], "seed_index": "7"}
        return [*rows[1:], rows[1], foreign]

    first = evaluated.table("per_image.csv")[0]
    rewrite(evaluated.paths.metrics / "per_image.csv", change)
    found = recompute_scores(evaluated.paths).disagreements
    place = f"step {first['step']}, prompt_id {first['prompt_id']}, seed_index {first['seed_index']}"
    assert f"per_image.csv: there is no row of {place}" in found
    assert any("stands there twice" in line for line in found)
    assert any("nothing is known of" in line and "seed_index 7" in line for line in found)
    assert any(line.startswith("checkpoints.csv, from per_image.csv: step 0, clip_demo is") for line in found)


def test_a_picture_that_is_not_the_nearest_any_more_and_an_empty_cell_are_told(evaluated: Run) -> None:
    def change(rows: Table) -> Table:
        rows[2]["nearest_train"] = "nobody"
        rows[3]["clip"] = ""
        return rows

    rewrite(evaluated.paths.metrics / "per_image.csv", change)
    found = recompute_scores(evaluated.paths).disagreements
    assert any("nearest_train is nobody, recomputed" in line for line in found)
    assert any("clip is absent, recomputed" in line for line in found)


def test_rows_that_no_stage_wrote_are_disagreements_like_any_other(evaluated: Run) -> None:
    path = evaluated.paths.metrics / "per_image.csv"
    header, first, second, *rest = path.read_text(encoding="utf-8").splitlines()
    cells = first.split(",")
    cells[header.split(",").index("seed_index")] = "two"
    short = second.rpartition(",")[0].partition(",")[0]
    path.write_text("\n".join([header, ",".join(cells), short, f"{rest[0]},more", *rest[1:]]) + "\n", encoding="utf-8")
    found = recompute_scores(evaluated.paths).disagreements
    assert any("nothing is known of" in line and "seed_index two" in line for line in found)
    assert any("nothing is known of" in line and "prompt_id None" in line for line in found)
    assert any("a cell beyond the header is ['more'], recomputed absent" in line for line in found)


def test_stored_features_that_are_cut_short_are_named(evaluated: Run) -> None:
    path = evaluated.paths.evaluation / "step-000010-inception.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PipelineError, match=r"step-000010-inception\.safetensors cannot be read: .* repro --force"):
        recompute_scores(evaluated.paths)


def test_the_summary_and_another_manifest_of_samples_are_compared_too(evaluated: Run) -> None:
    path = evaluated.paths.metrics / "summary.json"
    summary = json.loads(path.read_text())
    summary["fd_demo_last"] += 1
    path.write_text(json.dumps(summary))
    evaluated.manifest_path.write_text(evaluated.manifest_path.read_text() + "\n")
    found = recompute_scores(evaluated.paths).disagreements
    assert found[0] == "data/samples/manifest.json: changed since the manifest was written"
    (line,) = found[1:]
    assert line.startswith("summary.json: fd_demo_last is ")
    assert line.endswith("(differs by 1)")


def test_what_is_not_there_is_said(evaluated: Run, tmp_path: Path) -> None:
    (evaluated.paths.metrics / "per_image.csv").unlink()
    with pytest.raises(PipelineError, match=r"per_image\.csv is not there\. Run: dvc repro evaluate"):
        recompute_scores(evaluated.paths)
    with pytest.raises(PipelineError, match="Run: dvc repro evaluate"):
        recompute_scores(ProjectPaths(tmp_path / "empty"))


def test_rounding_of_another_machine_is_no_disagreement(evaluated: Run) -> None:
    def change(rows: Table) -> Table:
        return [
            {
                name: repr(float(cell) * (1 + 1e-7)) if name.startswith("fd") and cell else cell
                for name, cell in row.items()
            }
            for row in rows
        ]

    rewrite(evaluated.paths.metrics / "checkpoints.csv", change)
    assert recompute_scores(evaluated.paths).disagreements == ()


def change_json(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("places", "named"),
    [
        (("nulls", "fd_demo", "hi"), "nulls, fd_demo, hi is"),
        (("real_scores", "clip_gap_demo", "value"), "real_scores, clip_gap_demo, value is"),
        (("controls", "noise", "cmmd_demo"), "noise, cmmd_demo is"),
        (("controls", "blank white", "background_ok"), "blank white, background_ok is"),
        (("controls", "real photos, shuffled captions", "clip_demo"), "real photos, shuffled captions, clip_demo is"),
    ],
)
def test_what_photos_and_controls_score_is_computed_again(
    evaluated: Run, places: tuple[str, str, str], named: str
) -> None:
    def change(content: dict) -> None:
        section, key, name = places
        content[section][key][name] += 0.25

    change_json(evaluated.paths.evaluation / "manifest.json", change)
    (line,) = recompute_scores(evaluated.paths).disagreements
    assert line.startswith(f"data/evaluation/manifest.json: {named}")
    assert line.endswith("(differs by 0.25)")


def test_a_control_that_moved_is_told(evaluated: Run) -> None:
    path = evaluated.paths.evaluation / "noise-clip.safetensors"
    arrays = load_file(path)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    arrays["image"] = arrays["image"][::-1].copy()
    save_file(arrays, path, metadata=metadata)
    found = recompute_scores(evaluated.paths).disagreements
    assert found[0] == "data/evaluation/noise-clip.safetensors: changed since the manifest was written"
    assert any(line.startswith("data/evaluation/manifest.json: noise, clip_demo is") for line in found)


def test_the_recommendation_is_made_again(evaluated: Run, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated.stage(select)
    before = recompute_scores(evaluated.paths).n_numbers
    verify(evaluated)
    assert int(capsys.readouterr().out.splitlines()[-1].split()[0]) > before

    def change(content: dict) -> None:
        content["standings"]["step-000010"]["merit"] += 1
        content["step"] = 20

    change_json(evaluated.paths.metrics / "selection.json", change)
    with pytest.raises(SystemExit) as ended:
        verify(evaluated)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "selection.json: step is 20, recomputed 10" in said
    assert "selection.json: step-000010, merit is" in said
    assert "dvc repro --force select" in said


def refused(run: Run, capsys: pytest.CaptureFixture[str]) -> str:
    """Run `verify`, which ends with a sentence and no traceback; return what it says."""
    with pytest.raises(SystemExit) as ended:
        verify(run)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said
    return said


def test_draws_that_claims_were_made_from_are_computed_again(evaluated: Run) -> None:
    """Their hash may be right: whoever changes draws can write the manifest too."""
    path = evaluated.paths.evaluation / RESAMPLES
    arrays = load_file(path)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    arrays["10/cmmd_demo/diff_base"] = arrays["10/cmmd_demo/diff_base"] + 0.5
    del arrays["0/clip_demo"]
    save_file(arrays, path, metadata=metadata)
    change_json(
        evaluated.paths.evaluation / "manifest.json",
        lambda content: content["files"].update({RESAMPLES: sha256_file(path)}),
    )
    found = recompute_scores(evaluated.paths).disagreements
    place = f"evaluation/{RESAMPLES}: the draws of"
    assert found[0].startswith(f"{place} 0/clip_demo are absent, recomputed")
    assert found[1] == f"{place} 10/cmmd_demo/diff_base are others when recomputed (they differ by up to 0.5)"
    assert len(found) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.update(controls={}), "noise, cmmd_demo is absent, recomputed"),
        (lambda m: m["controls"].update({"a mirror": {"cmmd_demo": 1.0}}), "a mirror, cmmd_demo is 1, recomputed"),
        (lambda m: m.update(photo_draws=None), "it does not say how the nulls were drawn"),
        (lambda m: m["best_steps"].update(cmmd_demo=0), "best_steps, cmmd_demo is 0, recomputed 10"),
        (lambda m: m["absent"].update({"step-000010/fd_demo": "no"}), "absent, step-000010/fd_demo is no, recomputed"),
    ],
)  # fmt: skip
def test_what_a_manifest_leaves_out_or_adds_is_told(evaluated: Run, change: Callable[[dict], None], told: str) -> None:
    change_json(evaluated.paths.evaluation / "manifest.json", change)
    found = recompute_scores(evaluated.paths).disagreements
    assert any(line.startswith("data/evaluation/manifest.json: ") and told in line for line in found)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.update(reason="because"), "selection.json: reason is because, recomputed"),
        (lambda s: s["gates_failed"].update({"step-000010": "too dear"}), "gates_failed, step-000010 is too dear"),
        (lambda s: s["criteria"].pop("colour"), "criteria, colour is absent, recomputed colour_ratio"),
        (lambda s: s["standings"].pop("step-000010"), "step-000010, merit is absent, recomputed"),
        (lambda s: s.update(standings=None), "selection.json"),
    ],
)
def test_every_part_of_the_recommendation_is_compared(
    evaluated: Run, capsys: pytest.CaptureFixture[str], change: Callable[[dict], None], told: str
) -> None:
    evaluated.stage(select)
    change_json(evaluated.paths.metrics / "selection.json", change)
    assert told in refused(evaluated, capsys)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("metrics/selection.json", "[]"), ("metrics/summary.json", "5"), ("metrics/summary.json", "null"),
        ("metrics/checkpoints.csv", "step,n_images\nnan,3\n"), ("metrics/selection.json", "{"),
    ],
)  # fmt: skip
def test_damage_of_any_kind_is_a_sentence(
    evaluated: Run, capsys: pytest.CaptureFixture[str], file: str, content: str
) -> None:
    evaluated.stage(select)
    (evaluated.paths.root / file).write_text(content)
    assert "dvc repro" in refused(evaluated, capsys)


@pytest.mark.parametrize("gone", [RESAMPLES, "step-000010-clip.safetensors", "noise-inception.safetensors"])
def test_a_manifest_that_lacks_a_file_is_a_sentence(
    evaluated: Run, capsys: pytest.CaptureFixture[str], gone: str
) -> None:
    change_json(evaluated.paths.evaluation / "manifest.json", lambda content: content["files"].pop(gone))
    said = refused(evaluated, capsys)
    assert "What evaluate stored cannot be computed with" in said
    assert "dvc repro --force evaluate" in said


def test_one_damaged_part_hides_no_other(evaluated: Run, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated.stage(select)
    change_json(evaluated.paths.metrics / "selection.json", lambda content: content.update(reason="because"))
    (evaluated.paths.metrics / "summary.json").write_text("5")
    said = refused(evaluated, capsys)
    assert "summary.json cannot be read: it holds no JSON object" in said
    assert "selection.json: reason is because" in said


def test_what_is_not_looked_at_is_said(evaluated: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A rule that changed since the recommendation was made is no disagreement of the scores."""
    verify(evaluated)
    lines = capsys.readouterr().out.splitlines()
    assert "not compared: metrics/selection.json, which is not there" in lines
    assert "not compared: metrics/final.json, which is not there" in lines
    evaluated.stage(select)
    for name in ("params.yaml", "dvc.lock"):
        shutil.copy(ROOT / name, evaluated.paths.root / name)
    params = evaluated.paths.root / "params.yaml"
    params.write_text(params.read_text().replace("min_centred_ok: 0.9", "min_centred_ok: 0.5"))
    with inside(evaluated.paths.root):
        cli.main(["verify"])
    said = capsys.readouterr().out
    assert (
        "not compared: metrics/selection.json, because params.yaml has changed since (select.min_centred_ok was" in said
    )
