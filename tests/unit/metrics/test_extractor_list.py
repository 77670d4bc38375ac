"""evaluate.extractors as a list: every entry gives columns of its own name, the demo's stay as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loupe.atomic_io import read_record
from loupe.errors import PipelineError
from loupe.evaluation_records import ReferenceManifest
from loupe.metric_specs import applicable_specs
from loupe.metrics.extractor_keys import Machine
from loupe.metrics.extractors import resolve_extractors
from loupe.metrics.frechet import frechet_distance
from loupe.metrics.image_set import CLIP_TEXT
from loupe.metrics.image_set_files import read_image_set
from loupe.metrics.recompute import recompute_scores
from stages.evaluate import evaluate
from stages.reference import reference
from stages.select import select
from tests.unit.metrics.evaluation_project import KEYS, Run
from tests.unit.metrics.small_run import read_json
from tests.unit.metrics.toy_transformers import write_toy_dinov2, write_toy_preference, write_toy_rater

CPU = Machine(device="cpu", identity="cpu test")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_toy_dinov2(folder / "eyes")
    write_toy_rater(folder / "taste")
    write_toy_preference(folder / "choice")
    return folder


def names(models: Path) -> list[str]:
    return [f"dinov2:{models / 'eyes'}", f"aesthetic:{models / 'taste'}", f"preference:{models / 'choice'}"]


def all_stages(run: Run, extractors: list[str], **sections: dict) -> None:
    for work in (reference, evaluate, select):
        run.stage(work, evaluate={"extractors": extractors}, **sections)


@pytest.fixture(scope="module")
def longer(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with three extractors more than the demo's."""
    run = Run(tmp_path_factory.mktemp("longer"), steps=(0, 10), n_prompts=3)
    all_stages(run, ["demo", "demo-clip", *names(models)])
    return run


def test_more_extractors_leave_the_demos_columns_as_they_are(evaluated_once: Run, longer: Run) -> None:
    for table in ("checkpoints.csv", "per_image.csv"):
        for before, after in zip(evaluated_once.table(table), longer.table(table), strict=True):
            assert {name: after[name] for name in before} == before


def test_every_further_extractor_gives_columns_of_its_own_name(longer: Run) -> None:
    manifest = longer.evaluation()
    eyes, taste, choice = (info.name.replace("@", "_") for info in manifest.extractors[2:])
    assert [info.role for info in manifest.extractors] == ["inception", "clip", "features", "aesthetic", "preference"]
    assert {info.kind for info in manifest.extractors[2:]} == {"custom"}
    of_eyes = [
        f"{stem}_{eyes}"
        for stem in (
            "fd",
            "kid",
            "precision",
            "recall",
            "density",
            "coverage",
            "memor_share",
            "diversity_ratio",
            "vendi",
        )
    ]
    assert set(manifest.metric_keys) - set(KEYS) == {*of_eyes, f"aesthetic_{taste}", f"preference_{choice}"}
    last = longer.table("checkpoints.csv")[-1]
    assert all(last[key] for key in manifest.metric_keys)
    assert set(manifest.metric_keys) <= set(manifest.nulls)
    picture = longer.table("per_image.csv")[0]
    assert {f"memorised_{eyes}", "aesthetic", "preference", "memorised"} <= set(picture)
    assert 0 < float(picture["aesthetic"]) < 1


def test_a_column_is_computed_with_the_extractor_that_it_names(longer: Run) -> None:
    manifest = longer.evaluation()
    photos = ReferenceManifest.model_validate_json((longer.paths.reference / "manifest.json").read_bytes())
    val = read_image_set(longer.paths.reference, "val", photos.files, made_by="reference")
    step = read_image_set(longer.paths.evaluation, "step-000010", manifest.files, made_by="evaluate")
    eyes = manifest.extractors[2].name.replace("@", "_")
    expected = frechet_distance(step.array(f"{eyes}.features"), val.array(f"{eyes}.features"))
    row = longer.table("checkpoints.csv")[-1]
    assert float(row[f"fd_{eyes}"]) == pytest.approx(expected, rel=1e-6)
    assert float(row[f"fd_{eyes}"]) != pytest.approx(float(row["fd_demo"]), rel=1e-3)


def test_scores_of_every_extractor_can_be_computed_again(longer: Run) -> None:
    assert recompute_scores(longer.paths).disagreements == ()


def test_a_shuffled_caption_is_another_one_to_every_text_tower(longer: Run) -> None:
    manifest = read_record(longer.paths.reference / "manifest.json", ReferenceManifest, made_by="reference")
    photos = read_image_set(longer.paths.reference, "val", manifest.files, made_by="reference")
    shuffled = read_image_set(longer.paths.evaluation, "shuffled", longer.evaluation().files, made_by="evaluate")
    row_of = {text.tobytes(): row for row, text in enumerate(photos.array(CLIP_TEXT))}
    moved = [row_of[text.tobytes()] for text in shuffled.array(CLIP_TEXT)]
    assert sorted(moved) == list(range(len(photos)))
    (other,) = (name for name in photos.arrays if name.endswith(".text") and name != CLIP_TEXT)
    assert np.array_equal(shuffled.array(other), photos.array(other)[moved])
    assert not np.array_equal(shuffled.array(other), photos.array(other))
    scores = longer.evaluation().controls["real photos, shuffled captions"]
    assert sum(key.startswith("preference_") for key in scores) == 1


def test_select_looks_at_the_first_of_each_role_unless_told_otherwise(longer: Run) -> None:
    specs = applicable_specs(longer.evaluation().extractors)
    assert [key for key, spec in specs.items() if spec.ranks] == ["cmmd_demo"]
    assert read_json(longer.paths.metrics / "selection.json")["criteria"]["distance"] == "cmmd_demo"
    other = f"kid_{longer.evaluation().extractors[2].name.replace('@', '_')}"
    settings = {"distance": other}
    longer.stage(select, select=settings)
    assert read_json(longer.paths.metrics / "selection.json")["criteria"]["distance"] == other
    with pytest.raises(PipelineError, match=r"select\.distance is 'kid_dinov3'.* this run has .*kid_demo"):
        longer.stage(select, select={"distance": "kid_dinov3"})


def test_the_first_of_the_list_is_the_one_that_counts(models: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", steps=(0, 10), n_prompts=3)
    all_stages(run, [names(models)[0], "demo", "demo-clip"], select={"distance": "kid"})
    eyes = run.evaluation().extractors[0].name.replace("@", "_")
    specs = applicable_specs(run.evaluation().extractors)
    assert [key for key, spec in specs.items() if spec.criterion in ("kid", "memorisation", "diversity")] == [
        f"kid_{eyes}", f"memor_share_{eyes}", f"diversity_ratio_{eyes}"
    ]  # fmt: skip
    assert read_json(run.paths.metrics / "selection.json")["criteria"]["distance"] == f"kid_{eyes}"
    picture = run.table("per_image.csv")[0]
    assert {"memorised", "memorised_demo_classifier"} <= set(picture)
    assert recompute_scores(run.paths).disagreements == ()


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (["demoo", "demo-clip"], "no extractor is called 'demoo'. Did you mean demo?"),
        (["incpetion", "demo-clip"], "Did you mean inception?"),
        (["demo"], "no network of pictures and texts; add demo-clip or an open_clip model"),
        (["demo-clip"], "no network of pictures; add demo, inception or dinov2"),
        (["demo", "demo-clip", "ViT-B-33/openai"], "Near architectures: ViT-B-32"),
        (["dinov2", "demo", "demo-clip"], "hf download facebook/dinov2-base"),
        (["inception", "demo-clip"], "weights-inception-2015-12-05-6726825d.pth"),
    ],
)
@pytest.mark.usefixtures("no_weights")
def test_a_list_that_cannot_be_had_says_what_to_do(demo: Path, listed: list[str], expected: str) -> None:
    with pytest.raises(PipelineError) as caught:
        resolve_extractors(listed, demo_folder=demo, machine=CPU)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [("dinov2", "hf download facebook/dinov2-base"), ("inception", "weights-inception-2015-12-05-6726825d.pth")],
)
@pytest.mark.usefixtures("no_weights")
def test_what_may_be_left_out_says_what_to_do_as_well(demo: Path, entry: str, expected: str) -> None:
    found = resolve_extractors(["demo", "demo-clip", entry], demo_folder=demo, machine=CPU)
    assert expected in found.left_out[entry]


@pytest.mark.usefixtures("no_weights")
def test_all_that_is_wrong_with_a_list_is_said_at_once(demo: Path) -> None:
    with pytest.raises(PipelineError, match=r"(?s)3 problems.*demoo.*dinov2.*preference"):
        resolve_extractors(["demoo", "dinov2", "preference"], demo_folder=demo, machine=CPU)


def test_one_network_under_two_entries_is_refused(demo: Path, models: Path, tmp_path: Path) -> None:
    (tmp_path / "eyes").symlink_to(models / "eyes")
    twice = [f"dinov2:{models / 'eyes'}", f"dinov2:{tmp_path / 'eyes'}", "demo-clip"]
    with pytest.raises(PipelineError, match="more than once"):
        resolve_extractors(twice, demo_folder=demo, machine=CPU)
