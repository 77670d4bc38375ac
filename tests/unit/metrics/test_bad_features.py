"""Evaluation with a network that gives features no score can be taken of: NaN, or nothing but zeros."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loupe.errors import PipelineError
from loupe.metrics.clip import load_clip
from loupe.params import Params
from loupe.paths import ProjectPaths
from loupe.workstore import WorkStore
from stages.evaluate import evaluate
from stages.reference import reference
from stages.select import select
from tests.unit.metrics.evaluation_project import Run
from tests.unit.metrics.small_run import read_json

OF_CLIP = {"clip_demo", "clip_gap_demo", "cmmd_demo"}


def damage(monkeypatch: pytest.MonkeyPatch, file: Path, value: float) -> None:
    """Let the text-image network say `value`, in every place of the feature, of the picture in `file`."""
    wanted = np.array(Image.open(file))

    def load(*arguments: object):
        network = load_clip(*arguments)

        def images(batch):
            said = {name: array.copy() for name, array in network.images(batch).items()}
            said["image"][[np.array_equal(pixels, wanted) for pixels in batch]] = value
            return said

        return replace(network, images=images)

    monkeypatch.setattr("loupe.metrics.extractors.load_clip", load)


@pytest.fixture
def anew(evaluated: Run, tmp_path: Path) -> Run:
    """An evaluated project whose work store has forgotten every feature."""
    evaluated.store = WorkStore(tmp_path / "fresh")
    return evaluated


def test_a_feature_that_is_not_finite_names_the_extractor_and_the_picture(
    anew: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = next(sample for sample in anew.samples().samples if sample.step == 10)
    damage(monkeypatch, anew.paths.samples / sample.file, np.nan)
    with pytest.raises(PipelineError) as caught:
        anew.stage(evaluate)
    assert f"samples: demo-clip: NaN or infinity in image for {anew.paths.samples / sample.file}. " in str(caught.value)


@pytest.mark.parametrize("work", [reference, evaluate])
def test_a_device_whose_memory_is_full_is_a_sentence(
    anew: Run, monkeypatch: pytest.MonkeyPatch, work: Callable[[Params, ProjectPaths, WorkStore], None]
) -> None:
    def full(_: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(
        "loupe.metrics.extractors.load_clip", lambda *arguments: replace(load_clip(*arguments), images=full)
    )
    with pytest.raises(PipelineError, match=r"The memory of cpu is full\. Close other programs\."):
        anew.stage(work)


def test_a_feature_of_zeros_leaves_out_the_scores_that_need_its_direction_and_no_other(
    anew: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = anew.table("checkpoints.csv")
    sample = next(sample for sample in anew.samples().samples if sample.step == 10)
    damage(monkeypatch, anew.paths.samples / sample.file, 0.0)
    anew.stage(evaluate)
    base, last = anew.table("checkpoints.csv")
    of_others = {key: cell for key, cell in before[1].items() if not key.startswith(tuple(OF_CLIP))}
    assert {key: last[key] for key in of_others} == of_others
    assert all(base[key] and not last[key] and not last[f"{key}_diff_base"] for key in OF_CLIP)
    absent = {place: why for place, why in anew.evaluation().absent.items() if not place.endswith("_interval")}
    assert {place for place in absent if "_diff_" not in place} == {f"step-000010/{key}" for key in OF_CLIP}
    said = f"only zeros, which have no direction, for the image of {sample.prompt_id} ({sample.seed_index})"
    assert all(said in reason for reason in absent.values())
    assert "clip_demo_last" not in read_json(anew.paths.metrics / "summary.json")


def test_an_extractor_that_is_not_there_leaves_out_its_own_scores_and_says_why(
    evaluated: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: evaluated.table(name) for name in ("checkpoints.csv", "per_image.csv", "overfitting.csv")}
    entry = "inception:/no/such.pth"
    wanted = {"evaluate": {"extractors": ["demo", "demo-clip", entry]}}
    for work in (reference, evaluate, select):
        evaluated.stage(work, **wanted)
    assert {name: evaluated.table(name) for name in before} == before
    manifest = evaluated.evaluation()
    assert manifest.findings[-1] == f"no scores by {entry}: {manifest.left_out[entry]}"
    assert "/no/such.pth is not there. Download" in manifest.left_out[entry]
    said = capsys.readouterr().out
    assert f"reference: no scores by {entry}: " in said
    assert f"evaluate: no scores by {entry}: " in said


def test_a_real_photo_without_direction_leaves_out_the_distance_and_its_null(
    anew: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(monkeypatch, anew.paths.dataset / "val" / "images" / "0003.png", 0.0)
    for work in (reference, evaluate):
        anew.stage(work)
    manifest = anew.evaluation()
    assert "cmmd_demo" not in manifest.nulls
    assert "clip_demo" not in manifest.real_scores
    assert all(row["clip_demo"] and not row["cmmd_demo"] for row in anew.table("checkpoints.csv"))
    assert "for the image of 0003 (0)" in manifest.absent["step-000000/cmmd_demo"]
