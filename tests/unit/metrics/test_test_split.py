"""The test split: no stage but confirm opens it, and confirm looks at it once, with new seeds."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loupe.atomic_io import write_record
from loupe.final_html import final_note
from loupe.metric_specs import METRIC_SPECS
from loupe.metrics.evaluation_files import CONFIRMED
from loupe.metrics.recompute_final import recompute_final
from loupe.records import SamplesManifest
from loupe.run_store import RunStore
from loupe.verification import verify_results
from stages.confirm import confirm
from stages.evaluate import evaluate
from stages.reference import reference
from stages.select import select
from tests.unit.diffusion.tiny_checkpoints import write_checkpoints
from tests.unit.metrics.evaluation_project import Run, params
from tests.unit.metrics.small_run import ROOT, read_json
from tests.unit.metrics.toy_transformers import write_toy_dinov2

GATES = params().select
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
    drawn_with = {"base_model": source.base_model, "checkpoints_fingerprint": source.checkpoints.fingerprint}
    write_record(run.manifest_path, run.samples().model_copy(update=drawn_with))
    test_split = str(run.paths.dataset / "test")
    eyes = write_toy_dinov2(tmp_path / "eyes")
    sections = {
        "evaluate": {"extractors": ["demo", "demo-clip", f"dinov2:{eyes}"]},
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
    _check_verify(run)
    _check_looks(run, sections)


def _table(path: Path) -> dict[str, dict[str, float]]:
    with path.open(newline="") as file:
        return {row.pop("score"): {k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)}


def _check_verify(run: Run) -> None:
    again = recompute_final(run.paths, GATES)
    assert again.disagreements == ()
    assert again.n_numbers > 100
    file = run.paths.metrics / "final.csv"
    was = file.read_text()
    key, base, *others = next(line for line in was.splitlines() if line.startswith("fd_demo,")).split(",")
    file.write_text(was.replace(f"{key},{base},", f"{key},{float(base) + 1},"))
    (found,) = recompute_final(run.paths, GATES).disagreements
    assert f"final.csv: score fd_demo, base is {float(base) + 1:.8g}" in found
    assert others
    file.write_text(was)
    _check_what_else_verify_sees(run)


def _check_what_else_verify_sees(run: Run) -> None:
    """The verdict is that of the recommendation; nulls of the test photos and draws are computed again."""
    final, manifest = run.paths.metrics / "final.json", run.paths.confirmation / CONFIRMED
    for file, change, told in (
        (final, lambda content: content.update(verdict="perfect"), "final.json: verdict is perfect, recomputed"),
        (
            final,
            lambda content: content.update(gates_failed=""),
            "final.json: gates_failed is absent, recomputed background_ok 0",
        ),
        (manifest, lambda content: content["nulls"]["cmmd_demo"].update(mean=7.5), "nulls, cmmd_demo, mean is 7.5"),
        (manifest, lambda content: content.update(photo_draws=None), "does not say how the nulls were drawn"),
    ):
        was = file.read_text()
        content = json.loads(was)
        change(content)
        file.write_text(json.dumps(content))
        assert any(told in line for line in recompute_final(run.paths, GATES).disagreements)
        assert bool(recompute_final(run.paths, None).disagreements) == ("gates_failed" not in told)
        file.write_text(was)
    assert recompute_final(run.paths, GATES).disagreements == ()
    assert recompute_final(run.paths, None).disagreements == (), "what stands there of gates is not looked at"
    passed_by_all = {"min_background_ok": 0, "min_centred_ok": 0, "max_invalid": 99, "max_text_loss": None}
    (found,) = recompute_final(run.paths, GATES.model_copy(update=passed_by_all)).disagreements
    assert found.endswith("required 0.9, recomputed absent"), "it fails none of these"
    _check_changed_parameters(run)


def _check_changed_parameters(run: Run) -> None:
    """Gates that changed since are no disagreement, and it is said that they are not compared."""
    copies = [run.paths.root / name for name in ("params.yaml", "dvc.lock")]
    for copy in copies:
        shutil.copy(ROOT / copy.name, copy)
    copies[0].write_text(copies[0].read_text().replace("min_centred_ok: 0.9", "min_centred_ok: 0.5"))
    verified = verify_results(run.paths, params())
    assert verified.problems == ()
    changed = "because params.yaml has changed since (select.min_centred_ok was 0.9, is 0.5"
    assert [line.partition(f", {changed}")[0] for line in verified.left_out if changed in line] == [
        "metrics/selection.json",
        "the gates in metrics/final.json",
    ]
    for copy in copies:
        copy.unlink()


def _check_looks(run: Run, sections: dict) -> None:
    """The same choice again is no further look, another number of pictures is."""
    (first,) = RunStore(run.paths.root).looks()
    assert first.step == read_json(run.paths.metrics / "selection.json")["step"]
    run.stage(confirm, **sections)
    assert len(RunStore(run.paths.root).looks()) == 1
    run.stage(confirm, **{**sections, "confirm": {"test_captions": 2, "seeds_per_prompt": 2}})
    assert len(RunStore(run.paths.root).looks()) == 2
    assert "looked at 2 times" in final_note(RunStore(run.paths.root).final(), RunStore(run.paths.root).looks())


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
    assert final[next(name for name in final if name.startswith("eyes_"))].startswith("eyes@")
    scores = _table(run.paths.metrics / "final.csv")
    assert any(key.startswith("fd_eyes_") and "diff_lo" in row for key, row in scores.items())
    selected, base = scores["fd_demo"]["selected"], scores["fd_demo"]["base"]
    # Each is written with 8 significant digits, i.e. rounded by at most half of 1e-7 of itself.
    assert scores["fd_demo"]["diff"] == pytest.approx(selected - base, abs=1e-7 * (abs(selected) + abs(base)))
    assert scores["fd_demo"]["diff_lo"] <= scores["fd_demo"]["diff_hi"]
    assert scores["clip_demo"]["base_lo"] <= scores["clip_demo"]["base"] <= scores["clip_demo"]["base_hi"]
    assert scores["fd_demo"]["null_n"] == 6
    assert (scores["background_ok"]["real"], scores["background_ok"]["real_n"]) == (1.0, final["n_real"])
    headline = {key for key, spec in METRIC_SPECS.items() if spec.headline}
    of_scores = {name.rpartition("_selected")[0] for name in final if name.endswith("_selected")} - {"n_used"}
    assert of_scores == headline & scores.keys(), "few enough for dvc exp show"
    assert (final["fd_demo_selected"], final["fd_demo_diff"]) == (selected, scores["fd_demo"]["diff"])
    white, centred = (scores[key]["selected"] for key in ("background_ok", "centred_ok"))
    assert max(white, centred) < min(GATES.min_background_ok, GATES.min_centred_ok), "an untrained model draws noise"
    expected = f"background_ok {white:.3g}, required 0.9; centred_ok {centred:.3g}, required 0.9"
    assert final["gates_failed"].startswith(expected)
    assert all(isinstance(value, float | int | str) for value in final.values())
