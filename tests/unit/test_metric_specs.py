"""The table of metrics: every entry can be computed, and the standard names belong to standard networks alone."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args

import pytest

from dashboard.views.overview import TARGETS
from loupe.evaluate_params import TargetParams
from loupe.evaluation_records import ExtractorInfo
from loupe.metric_specs import (
    METRIC_SPECS,
    applicable_specs,
    checkpoint_columns,
    known_specs,
    local_weights,
    spec_of,
)
from loupe.metric_table import Criterion
from loupe.metrics.scoring import resolve_compute


def extractor(name: str, role: str, kind: str) -> ExtractorInfo:
    return ExtractorInfo(name=name, role=role, kind=kind, sha256="0" * 64, resize="none")


DEMO = (
    extractor("demo-classifier", "inception", "domain_trained"),
    extractor("demo-clip", "clip", "domain_trained"),
)
STANDARD = (
    extractor("inception-2015-12-05", "inception", "standard"),
    extractor("ViT-B-32-quickgelu/openai", "clip", "standard"),
)


PIXELS = (
    "colour_ratio", "colour_share", "colour_top2", "background_ok", "centred_ok", "single_object", "sharpness_pct"
)  # fmt: skip


@pytest.mark.parametrize("key", METRIC_SPECS)
def test_every_metric_names_functions_that_exist_with_the_expected_arguments(key: str) -> None:
    spec = METRIC_SPECS[key]
    expected = ["images", "real"]
    assert list(inspect.signature(resolve_compute(spec.compute)).parameters) == expected
    if spec.null is not None:
        assert list(inspect.signature(resolve_compute(spec.null)).parameters) == ["real", "n_images"]
    if spec.level == "set":
        assert list(inspect.signature(resolve_compute(spec.resamples)).parameters) == [*expected, "weights_RN"]
    else:
        assert spec.resamples is None
    if spec.pairs is not None:
        assert list(inspect.signature(resolve_compute(spec.pairs)).parameters) == expected
    assert (spec.pairs is not None) == spec.unbiased, "a mean over pairs, and nothing else here, has no bias"


@pytest.mark.parametrize("key", METRIC_SPECS)
def test_targets_are_fields_of_the_parameters(key: str) -> None:
    assert METRIC_SPECS[key].target in {None, *TargetParams.model_fields}


def test_every_target_of_a_score_has_words_on_overview() -> None:
    assert TARGETS.keys() | {"train_loss"} == TargetParams.model_fields.keys()


def test_standard_extractors_get_the_standard_names() -> None:
    assert list(applicable_specs(STANDARD)) == [
        "fid", "kid", "cmmd", "precision", "recall", "density", "coverage", "clip_score", "clip_gap", *PIXELS,
        "memor_share", "diversity_ratio", "vendi", "inception_score",
    ]  # fmt: skip


def test_scores_of_a_standard_text_image_model_name_it_and_what_published_values_are_of() -> None:
    specs = applicable_specs([*STANDARD, extractor("ViT-L-14/laion", "clip", "standard"), DEMO[1]])
    for key in ("cmmd", "clip_score", "clip_gap"):
        assert specs[key].meaning.endswith(" Here by ViT-B-32-quickgelu/openai.")
    assert "ViT-L/14 at 336 px" in specs["cmmd"].meaning
    assert "ViT-B/32" in specs["clip_score"].meaning
    for key in ("cmmd", "clip_score"):
        assert "ublished" in spec_of(key).meaning, "also where no manifest names the model"
    for key in ("cmmd_demo", "clip_demo", "cmmd_vit_l_14_laion", "clip_vit_l_14_laion"):
        assert "ublished" not in specs[key].meaning
        assert "only" in specs[key].meaning


def test_demo_extractors_never_write_a_standard_name() -> None:
    keys = applicable_specs(DEMO)
    assert list(keys) == [
        "fd_demo", "kid_demo", "cmmd_demo", "precision_demo", "recall_demo", "density_demo", "coverage_demo",
        "clip_demo", "clip_gap_demo", "colour_demo", *PIXELS, "memor_share_demo", "diversity_ratio_demo", "vendi_demo",
        "is_demo",
    ]  # fmt: skip
    assert set(PIXELS) == keys.keys() & set(applicable_specs(STANDARD)), "only pixels need no network's name"
    assert all(spec.target is None for spec in keys.values())


def test_another_network_that_claims_to_be_standard_gets_no_fid() -> None:
    other = extractor("inception-v3-torchvision", "inception", "standard")
    assert list(applicable_specs([other])) == list(PIXELS)


def test_extractor_sets_may_be_mixed() -> None:
    found = set(applicable_specs([DEMO[0], STANDARD[1]]))
    assert {"fd_demo", "cmmd", "clip_score", "clip_gap", "colour_demo", "is_demo"} <= found
    assert {"fid", "cmmd_demo", "clip_demo", "clip_gap_demo", "inception_score"}.isdisjoint(found)


@pytest.mark.parametrize("extractors", [DEMO, STANDARD])
def test_one_metric_ranks_and_image_columns_are_distinct(extractors: tuple[ExtractorInfo, ...]) -> None:
    specs = applicable_specs(extractors).values()
    assert sum(spec.ranks for spec in specs) == 1
    columns = [spec.image_column for spec in specs if spec.image_column]
    assert len(columns) == len(set(columns))
    assert all((spec.image_column is not None) == (spec.level == "image") for spec in specs)


def test_every_score_has_an_interval_and_two_differences_with_theirs() -> None:
    columns = checkpoint_columns({key: METRIC_SPECS[key] for key in ("fd_demo", "kid_demo")})
    assert columns == [
        "step", "n_images", "n_used", "n_real", "invalid_count",
        "fd_demo", "fd_demo_lo", "fd_demo_hi", "fd_demo_diff_base", "fd_demo_diff_base_lo", "fd_demo_diff_base_hi",
        "fd_demo_diff_best", "fd_demo_diff_best_lo", "fd_demo_diff_best_hi",
        "kid_demo", "kid_demo_lo", "kid_demo_hi", "kid_demo_diff_base", "kid_demo_diff_base_lo",
        "kid_demo_diff_base_hi", "kid_demo_diff_best", "kid_demo_diff_best_lo", "kid_demo_diff_best_hi",
        "val_loss", "val_loss_diff_base", "val_loss_diff_base_lo", "val_loss_diff_base_hi",
    ]  # fmt: skip


@pytest.mark.parametrize("extractors", [DEMO, STANDARD])
def test_select_finds_one_metric_for_each_of_its_uses(extractors: tuple[ExtractorInfo, ...]) -> None:
    uses = [spec.criterion for spec in applicable_specs(extractors).values() if spec.criterion]
    assert sorted(uses) == sorted(get_args(Criterion))


MANY = (
    *DEMO,
    STANDARD[0],
    extractor("dinov2-base", "features", "standard"),
    STANDARD[1],
    extractor("ViT-L-14/laion", "clip", "standard"),
    extractor("ViT-B-32/mine@12ab34cd", "clip", "custom"),
    extractor("PickScore_v1", "preference", "standard"),
    extractor("cafe@00000000", "aesthetic", "custom"),
)


def test_of_many_extractors_every_score_names_its_own() -> None:
    specs = applicable_specs(MANY)
    assert set(applicable_specs(DEMO)) | set(applicable_specs(STANDARD)) <= set(specs)
    assert set(specs) >= {
        "fd_dinov2_base", "kid_dinov2_base", "vendi_dinov2_base", "clip_vit_l_14_laion", "cmmd_vit_b_32_mine_12ab34cd",
        "clip_gap_vit_b_32_mine_12ab34cd", "preference_pickscore_v1", "aesthetic_cafe_00000000",
    }  # fmt: skip
    assert not {"is_dinov2_base", "colour_dinov2_base", "fd_pickscore_v1"} & set(specs), "it gives no classes"
    assert specs["clip_score"].extractor_name == STANDARD[1].name
    assert specs["clip_vit_l_14_laion"].target is None
    columns = [spec.image_column for spec in specs.values() if spec.image_column]
    assert len(columns) == len(set(columns))


def test_only_the_first_of_a_role_counts_for_select_and_keeps_the_short_columns() -> None:
    for extractors in (MANY, MANY[::-1], MANY[2:]):
        specs = applicable_specs(extractors)
        assert sorted(s.criterion for s in specs.values() if s.criterion) == sorted(get_args(Criterion))
        assert sum(spec.ranks for spec in specs.values()) == 1
        first = next(info for info in extractors if info.role == "clip")
        (text,) = (spec for spec in specs.values() if spec.criterion == "text")
        assert (text.extractor_name, text.image_column, text.arrays) == (first.name, "clip", "clip")


def test_a_file_of_ones_own_never_scores_under_a_standard_name() -> None:
    own = extractor("ViT-B-32/openai@12ab34cd", "clip", "custom")
    keys = applicable_specs([STANDARD[0], own])
    assert {"clip_score", "clip_gap", "cmmd"}.isdisjoint(keys)
    assert {"clip_vit_b_32_openai_12ab34cd", "cmmd_vit_b_32_openai_12ab34cd"} <= set(keys)


@pytest.mark.parametrize("extractors", [DEMO, STANDARD, MANY])
def test_columns_alone_tell_which_are_scores(extractors: tuple[ExtractorInfo, ...]) -> None:
    specs = applicable_specs(extractors)
    known = known_specs(checkpoint_columns(specs))
    assert list(known)[-1] == "val_loss"
    assert set(known) == {*specs, "val_loss"}
    for key, spec in specs.items():
        assert (known[key].level, known[key].better, known[key].unit) == (spec.level, spec.better, spec.unit)


@pytest.mark.parametrize(
    ("entry", "file"),
    [
        ("demo", None),
        ("demo-clip", None),
        ("inception", None),
        ("inception:weights.pth", None),
        ("dinov2", None),
        ("ViT-B-32/laion2b_s34b_b79k", None),
        ("ViT-B-32/mine.safetensors", "mine.safetensors"),
        ("ViT-B-32//models/a@b/mine.safetensors", "/models/a@b/mine.safetensors"),
        ("ViT-B-32/models/mine.safetensors@laion2b_e16", "models/mine.safetensors"),
        ("dinov2:models/dino", "models/dino/model.safetensors"),
    ],
)
def test_the_file_that_an_entry_names(entry: str, file: str | None) -> None:
    assert local_weights(entry) == (None if file is None else Path(file))
