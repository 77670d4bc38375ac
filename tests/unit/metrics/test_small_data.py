"""Runs with hardly any data: what cannot be computed says what it needs, and every other score still comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from loupe.atomic_io import read_record, read_records, sha256_file, write_record, write_records
from loupe.metrics.recompute import recompute_scores
from loupe.records import CaptionRecord, DatasetManifest
from stages.evaluate import evaluate
from stages.reference import reference
from stages.select import select
from tests.unit.metrics.evaluation_project import KEYS, Run
from tests.unit.metrics.small_run import read_json

AGAINST_PHOTOS = {"fd_demo", "kid_demo", "cmmd_demo", "precision_demo", "recall_demo", "density_demo", "coverage_demo"}


def keep_photos(run: Run, split: str, count: int, *, colour: str | None = None) -> None:
    """Reduce a split to its first photos, all of one colour where one is given."""
    path = run.paths.dataset / split / "captions.jsonl"
    records = read_records(path, CaptionRecord, made_by="prepare")[:count]
    if colour:
        records = [record.model_copy(update={"attributes": {"colour": colour}}) for record in records]
    write_records(path, records)
    manifest = read_record(run.paths.dataset / "manifest.json", DatasetManifest, made_by="prepare")
    changes = {
        "n_examples": {**manifest.n_examples, split: count},
        "captions_sha256": {**manifest.captions_sha256, split: sha256_file(path)},
    }
    write_record(run.paths.dataset / "manifest.json", manifest.model_copy(update=changes))


def same_prompt(run: Run, *, text: str | None = None, colour: str | None = None) -> None:
    """Give every prompt one text, or one colour (an empty one is none)."""
    manifest = run.samples()
    changes = ({"text": text} if text else {}) | ({"colour": colour or None} if colour is not None else {})
    prompts = tuple(prompt.model_copy(update=changes) for prompt in manifest.prompts)
    write_record(run.manifest_path, manifest.model_copy(update={"prompts": prompts}))


def absent(run: Run) -> dict[str, str]:
    """Run all stages; return what has no value at the last step, and why, and hold that the rest has one."""
    for work in (reference, evaluate, select):
        run.stage(work)
    last = run.table("checkpoints.csv")[-1]
    reasons = run.evaluation().absent
    found = {key: reasons[f"step-000010/{key}"] for key in KEYS if not last[key]}
    of_values = {place.partition("/")[2] for place in reasons if "_diff_" not in place}
    assert {key for key in of_values if not key.endswith("_interval")} == set(found)
    assert read_json(run.paths.metrics / "selection.json")["reason"]
    assert recompute_scores(run.paths).disagreements == ()
    return found


@pytest.fixture
def small(tmp_path: Path) -> Run:
    return Run(tmp_path / "run", steps=(0, 10), n_prompts=3)


def test_a_category_with_one_colour_and_one_wording_lacks_the_gap_between_prompts_alone(small: Run) -> None:
    for split in ("train", "val"):
        keep_photos(small, split, 12, colour="Red")
    same_prompt(small, text="photo of Red shoes", colour="Red")
    found = absent(small)
    assert found == {"clip_gap_demo": "no image has a value; it needs prompts of at least 2 different wordings"}
    assert "clip_gap" not in read_json(small.paths.metrics / "selection.json")["criteria"]


def test_prompts_without_a_colour_lack_the_colour_scores_alone(small: Run) -> None:
    same_prompt(small, colour="")
    found = absent(small)
    assert set(found) == {"colour_demo", "colour_ratio", "colour_share", "colour_top2", "diversity_ratio_demo"}
    assert found["colour_share"] == "no image has a value; it needs prompts that ask for a colour"


@pytest.mark.parametrize(
    ("count", "lacking"), [(0, AGAINST_PHOTOS | {"memor_share_demo"}), (1, AGAINST_PHOTOS - {"recall_demo"})]
)
def test_missing_reference_photos_cost_the_scores_that_compare_with_them(small: Run, count: int, lacking: set) -> None:
    keep_photos(small, "val", count)
    found = absent(small)
    assert set(found) == lacking
    assert found["kid_demo"] == f"the real side of KID needs at least 2 images; there are {count}"
    assert f"needs at least 6 images; there are {count}" in found["coverage_demo"]


def test_few_train_photos_cost_the_scores_that_need_more(small: Run) -> None:
    keep_photos(small, "train", 2)
    found = absent(small)
    assert set(found) == {"vendi_demo", "diversity_ratio_demo"}
    assert found["vendi_demo"] == "the whitening of a Vendi score needs at least 3 images; there are 2"
    assert "5 different train photos" in found["diversity_ratio_demo"]


def test_one_picture_per_prompt_has_no_diversity_within_it_and_few_have_no_recall(tmp_path: Path) -> None:
    found = absent(Run(tmp_path / "run", steps=(0, 10), n_prompts=3, seeds=1))
    assert set(found) == {"diversity_ratio_demo", "recall_demo"}
    assert "at least 2 valid pictures of a prompt" in found["diversity_ratio_demo"]
    assert found["recall_demo"] == "recall needs at least 6 images; there are 3"


def test_one_prompt_gives_every_score_but_no_interval(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", steps=(0, 10), n_prompts=1, seeds=6)
    assert set(absent(run)) == {"clip_gap_demo"}
    row = run.table("checkpoints.csv")[-1]
    with_interval = {name for name, cell in row.items() if cell and name.endswith(("_lo", "_hi"))}
    assert with_interval == {"val_loss_diff_base_lo", "val_loss_diff_base_hi"}, "paired by photo, not by prompt"
    assert row["fd_demo_diff_base"]
    assert "one prompt alone gives no interval; add prompts" in run.evaluation().findings
