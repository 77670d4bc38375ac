"""What reference, evaluate and select write on a small project, and what they reuse of an earlier run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from loupe.atomic_io import read_record, sha256_file
from loupe.evaluation_records import ReferenceManifest
from loupe.metric_specs import LOSS_COLUMNS, METRIC_SPECS, MetricSpec, checkpoint_columns
from loupe.metrics.estimates import resampling_of
from loupe.metrics.evaluation import RESAMPLES, Evaluated
from loupe.metrics.image_set_files import read_arrays
from loupe.metrics.measure import Measured
from loupe.metrics.recompute import recompute_scores
from loupe.metrics.scoring import StepScores
from loupe.records import SamplesManifest
from loupe.run_store import RunStore
from loupe.score_report import score_report
from loupe.workstore import WorkStore
from stages.evaluate import evaluate
from stages.reference import reference
from stages.select import select
from tests.unit.metrics.evaluation_project import BLACK, KEYS, SPECS, STEPS, Run, without_best
from tests.unit.metrics.image_sets import NOTHING
from tests.unit.metrics.small_run import read_json, toy_prompts, write_samples


def test_one_row_per_step_with_the_base_first(run: Run) -> None:
    rows = run.table("checkpoints.csv")
    assert [int(row["step"]) for row in rows] == list(STEPS)
    assert list(rows[0]) == checkpoint_columns(SPECS)
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
        "colour_ratio", "colour_share", "colour_top2", "background_ok", "centred_ok", "single_object",
        "sharpness_pct", "memorised", "diversity", "background_white_share", "nearest_train",
        "nearest_train_distance", "invalid_reason",
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
    lowest = min(rows[1:], key=lambda row: float(row["cmmd_demo"]))
    assert (summary["cmmd_demo_best"], summary["cmmd_demo_best_step"]) == (
        float(lowest["cmmd_demo"]),
        int(lowest["step"]),
    )
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
    assert manifest.unmeasured_targets == {"fid": 30, "clip_score": 25, "inception_score": 6}
    assert set(manifest.nulls) == set(KEYS)
    assert set(manifest.controls) == {"noise", "blank white", "real photos, shuffled captions"}
    assert manifest.controls["noise"]["background_ok"] == 0
    assert manifest.controls["blank white"]["background_ok"] == 1
    assert manifest.controls["blank white"]["centred_ok"] == 0 == manifest.controls["noise"]["centred_ok"]
    assert manifest.controls["blank white"]["vendi_demo"] == pytest.approx(1)
    assert "sharpness_pct" not in manifest.controls["blank white"], "there is no product to be sharp"
    assert set(manifest.controls["real photos, shuffled captions"]) == {
        "clip_demo",
        "clip_gap_demo",
        "colour_demo",
        "colour_ratio",
        "colour_share",
        "colour_top2",
    }
    assert set(manifest.real_scores) == {key for key in KEYS if not METRIC_SPECS[key].against_real}
    assert all(sha256_file(run.paths.evaluation / name) == sha256 for name, sha256 in manifest.files.items())


def test_prompts_are_resampled_within_their_colours(evaluated: Run) -> None:
    """Three ask for each of three colours: every resample holds as much of all."""
    manifest = write_samples(evaluated.paths.samples, steps=(0, 10), prompts=toy_prompts(9), seeds=1)
    evaluated.stage(evaluate)
    path = evaluated.paths.evaluation / RESAMPLES
    arrays, metadata = read_arrays(path.parent, path.name, sha256_file(path), made_by="evaluate")
    assert json.loads(metadata["prompts"]) == [prompt.prompt_id for prompt in manifest.prompts]
    for first in range(3):
        assert manifest.prompts[first].colour == manifest.prompts[first + 6].colour
        assert arrays["weights"][:, first::3].sum(axis=1) == pytest.approx(3)
    assert len(np.unique(arrays["weights"][:, 0])) > 2
    assert not recompute_scores(evaluated.paths).disagreements


def test_selection_is_backed_by_the_table(run: Run) -> None:
    selection = read_json(run.paths.metrics / "selection.json")
    assert selection["step"] == 30
    assert set(selection["gates_failed"]) >= {"step-000010", "step-000020"}
    assert "background_ok 0, required 0.9" in selection["gates_failed"]["step-000010"]
    assert "12 pictures of 6 prompts against 12 real val photos" in selection["reason"]


def test_the_validation_loss_stands_in_the_table_of_scores_as_train_measured_it(run: Run) -> None:
    scores, losses = run.table("checkpoints.csv"), run.table("validation.csv")
    for row, loss in zip(scores, losses, strict=True):
        assert row["val_loss"]
        assert {name: row[name] for name in LOSS_COLUMNS} == {name: loss[name] for name in LOSS_COLUMNS}
    (line,) = [line for line in score_report(RunStore(run.paths.root)).splitlines() if line.startswith("| step 20")]
    assert line.endswith("| 0.48 |")
    assert "| -0.02 [-0.025, -0.015] |" in score_report(RunStore(run.paths.root), keys=("val_loss",), against="base")


def test_overfitting_joins_the_validation_loss_to_the_signs_in_the_pictures(run: Run) -> None:
    rows, scores = run.table("overfitting.csv"), run.table("checkpoints.csv")
    assert [row["val_loss"] for row in rows] == ["0.5", "0.49", "0.48", "0.47"]
    assert rows[0]["val_loss_diff_base"] == ""
    assert list(rows[0])[-2:] == ["val_loss_t100", "val_loss_t500"]
    assert [float(row["val_loss_t500"]) for row in rows] == pytest.approx([0.55, 0.54, 0.53, 0.52])
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


def test_few_pictures_are_not_to_be_ranked_by_a_frechet_distance(run: Run) -> None:
    (finding,) = run.evaluation().findings
    assert finding == (
        "with 12 pictures, fewer than 256, fd_demo can rank the worse checkpoint first, because less diverse pictures "
        "lower its bias; go by kid_demo and cmmd_demo"
    )
    (column,) = [column for column in RunStore(run.paths.root).metrics() if column.spec.key == "fd_demo"]
    assert "Below 256 it ranks unreliably" in column.spec.meaning


def test_so_many_pictures_as_a_frechet_distance_needs_are_not_spoken_of() -> None:
    def findings(n_used: int, specs: dict[str, MetricSpec]) -> tuple[str, ...]:
        manifest = SamplesManifest.model_construct(seeds_per_prompt=n_used // 2, samples=())
        return Evaluated(
            manifest=manifest, measured=Measured(0, 0), sets={}, real=NOTHING, specs=specs,
            scores=(StepScores(0, n_used), StepScores(10, n_used)), best_steps={},
            resampling=resampling_of(("a", "b"), 2, np.random.default_rng(0)),
        ).findings  # fmt: skip

    assert findings(256, SPECS) == ()
    assert len(findings(254, SPECS)) == 1
    assert findings(254, {"kid_demo": SPECS["kid_demo"]}) == ()


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
    assert without_best(evaluated.table("checkpoints.csv")[0]) == without_best(before[0])


def test_what_is_computed_alone_equals_what_is_computed_together(evaluated: Run, tmp_path: Path) -> None:
    """Rows of the store must not depend on which other pictures were missing when they were computed."""
    evaluated.store = WorkStore(tmp_path / "fresh")
    before = evaluated.table("checkpoints.csv")
    evaluated.change_samples(lambda s: s if s.step == 0 or s.prompt_id != "p1" else s.model_copy(update=BLACK))
    evaluated.stage(evaluate)
    write_samples(evaluated.paths.samples, steps=(0, 10), prompts=toy_prompts(3), seeds=2)
    evaluated.stage(evaluate)
    assert evaluated.table("checkpoints.csv") == before
