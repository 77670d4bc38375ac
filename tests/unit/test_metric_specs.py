"""The table of metrics: every entry can be computed, and the standard names belong to standard networks alone."""

from __future__ import annotations

import inspect

import pytest

from loupe.metric_specs import METRIC_SPECS, applicable_specs, checkpoint_columns, metric_specs
from loupe.metrics.scoring import resolve_compute
from loupe.params import TargetParams
from loupe.records import ExtractorInfo


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


@pytest.mark.parametrize("key", METRIC_SPECS)
def test_every_metric_names_functions_that_exist_with_the_expected_arguments(key: str) -> None:
    spec = METRIC_SPECS[key]
    expected = ["images"] if spec.level == "image" else ["images", "real"]
    assert list(inspect.signature(resolve_compute(spec.compute)).parameters) == expected
    if spec.level == "set":
        assert list(inspect.signature(resolve_compute(spec.resamples)).parameters) == [*expected, "counts_RN"]
    else:
        assert spec.resamples is None


@pytest.mark.parametrize("key", METRIC_SPECS)
def test_targets_are_fields_of_the_parameters(key: str) -> None:
    assert METRIC_SPECS[key].target in {None, *TargetParams.model_fields}


def test_standard_extractors_get_the_standard_names() -> None:
    assert list(applicable_specs(STANDARD)) == ["fid", "clip_score", "background_ok", "inception_score"]


def test_demo_extractors_never_write_a_standard_name() -> None:
    keys = applicable_specs(DEMO)
    assert list(keys) == ["fd_demo", "clip_demo", "colour_demo", "background_ok", "is_demo"]
    assert all(spec.target is None for spec in keys.values())


def test_another_network_that_claims_to_be_standard_gets_no_fid() -> None:
    other = extractor("inception-v3-torchvision", "inception", "standard")
    assert {"fid", "fd_demo", "inception_score"}.isdisjoint(applicable_specs([other]))


def test_extractor_sets_may_be_mixed() -> None:
    assert list(applicable_specs([DEMO[0], STANDARD[1]])) == [
        "fd_demo", "clip_score", "colour_demo", "background_ok", "is_demo"
    ]  # fmt: skip


@pytest.mark.parametrize("extractors", [DEMO, STANDARD])
def test_one_metric_ranks_and_image_columns_are_distinct(extractors: tuple[ExtractorInfo, ...]) -> None:
    specs = applicable_specs(extractors).values()
    assert sum(spec.ranks for spec in specs) == 1
    columns = [spec.image_column for spec in specs if spec.image_column]
    assert len(columns) == len(set(columns))
    assert all((spec.image_column is not None) == (spec.level == "image") for spec in specs)


def test_set_metrics_have_an_interval_of_their_difference_only() -> None:
    columns = checkpoint_columns(["fd_demo", "background_ok"])
    assert columns == [
        "step", "n_images", "n_used", "n_real", "invalid_count",
        "fd_demo", "fd_demo_diff_base", "fd_demo_diff_base_lo", "fd_demo_diff_base_hi",
        "background_ok", "background_ok_lo", "background_ok_hi",
        "background_ok_diff_base", "background_ok_diff_base_lo", "background_ok_diff_base_hi",
    ]  # fmt: skip


def test_the_table_handed_out_is_a_copy() -> None:
    metric_specs().clear()
    assert METRIC_SPECS
