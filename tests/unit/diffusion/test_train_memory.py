"""What training does with the memory there is, and what it says before it starts."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from loupe.diffusion import train_memory
from loupe.diffusion.adapter import AdapterConfig
from loupe.diffusion.cost_model import drawing_cost
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.memory import Beside, run_bytes
from loupe.diffusion.train_memory import plan_memory
from loupe.diffusion.validation import ROWS_AT_ONCE
from tests.tiny_models import build_tiny_base_model
from tests.unit.diffusion.tiny_training import ATTENTION, CPU, tiny_examples, tiny_settings

ADAPTER = AdapterConfig(rank=4, alpha=8, target_modules=ATTENTION, base_model="tiny")
OPTIONS = {"settings": tiny_settings(batch_size=4), "adapter": ADAPTER, "policy": CPU, "previews": False}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_tiny_base_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def needed(base):
    """Bytes that training takes, by gradient checkpointing."""
    plan = plan_memory(base, tiny_examples(), choice="never", **OPTIONS)
    return {
        choice: run_bytes(plan.cost, replace(plan.setting, gradient_checkpointing=choice), device="cpu")
        for choice in (False, True)
    }


def plan_with(monkeypatch, base, choice, free):
    monkeypatch.setattr(train_memory, "available_bytes", lambda policy: free)
    return plan_memory(base, tiny_examples(), choice=choice, **OPTIONS)


def test_with_room_nothing_is_recomputed_and_nothing_said(monkeypatch, base, needed):
    plan = plan_with(monkeypatch, base, "auto", needed[False])
    assert (plan.gradient_checkpointing, plan.notes) == (False, ())


def test_auto_recomputes_when_only_that_fits_and_says_so(monkeypatch, base, needed):
    assert needed[True] < needed[False]
    plan = plan_with(monkeypatch, base, "auto", needed[False] - 1)
    assert plan.gradient_checkpointing
    assert len(plan.notes) == 1
    assert "would not fit into memory without it" in plan.notes[0]


def test_never_is_obeyed_with_a_warning_that_names_the_setting_that_fits(monkeypatch, base, needed):
    plan = plan_with(monkeypatch, base, "never", needed[True])
    assert not plan.gradient_checkpointing
    (warning,) = plan.notes
    assert warning.startswith("train: WARNING: training needs about")
    assert "data.resolution 64, train.batch_size 4" in warning
    assert "train.gradient_checkpointing always" in warning


def test_always_recomputes_without_a_word(monkeypatch, base, needed):
    plan = plan_with(monkeypatch, base, "always", needed[False])
    assert (plan.gradient_checkpointing, plan.notes) == (True, ())


def test_the_plan_counts_the_validation_and_the_moving_average(base):
    with_average = OPTIONS | {"settings": tiny_settings(batch_size=4, ema_decay=0.9)}
    plain = plan_memory(base, tiny_examples(), choice="never", **OPTIONS)
    averaged = plan_memory(base, tiny_examples(), choice="never", **with_average)
    cost = plain.cost
    assert plain.setting.beside == Beside(cost.weight_bytes * 5 // 4, ROWS_AT_ONCE * cost.row_bytes)
    assert plain.setting.numbers_per_parameter == 4
    assert averaged.setting == replace(plain.setting, numbers_per_parameter=5)
    assert not plain.setting.is_recorded
    assert "The nearest setting that takes less: " in plain.why_full()


def test_previews_on_the_cpu_load_a_vae_and_a_text_encoder_too(base):
    with_previews = plan_memory(base, tiny_examples(), choice="never", **OPTIONS | {"previews": True}).setting.beside
    without = plan_memory(base, tiny_examples(), choice="never", **OPTIONS).setting.beside
    drawing = drawing_cost(base, latent_side=8, text_tokens=77, policy=CPU)
    assert with_previews.weight_bytes == drawing.weight_bytes * 5 // 4 > without.weight_bytes
    assert with_previews.activation_bytes >= 16 * drawing.row_bytes


@pytest.mark.parametrize(
    ("knobs", "kind", "recorded"),
    [({}, {}, True), ({"lora_dropout": 0.1}, {}, False), ({"train_text_encoder": True}, {}, False),
     ({}, {"use_dora": True}, False)],
)  # fmt: skip
def test_on_a_gpu_a_recorded_step_is_counted_where_there_is_one(monkeypatch, base, knobs, kind, recorded):
    monkeypatch.setattr(train_memory, "available_bytes", lambda policy: 10**12)
    options = {
        "settings": tiny_settings(batch_size=4, **knobs), "adapter": replace(ADAPTER, **kind),
        "policy": DevicePolicy("cuda", "float32", "test"), "previews": True,
    }  # fmt: skip
    for choice in ("auto", "always"):
        setting = plan_memory(base, tiny_examples(), choice=choice, **options).setting
        assert setting.is_recorded == (recorded and choice == "auto")
        assert setting.beside.activation_bytes < 16 * setting.beside.weight_bytes


def test_prodigy_keeps_two_numbers_more(base):
    options = OPTIONS | {"settings": tiny_settings(batch_size=4, optimizer="prodigy", ema_decay=0.9)}
    assert plan_memory(base, tiny_examples(), choice="never", **options).setting.numbers_per_parameter == 7


def test_processes_go_by_the_least_that_one_has_free(monkeypatch, base, needed):
    """One that recomputes beside one that does not would add up other gradients."""
    monkeypatch.setattr(train_memory, "available_bytes", lambda policy: 10**12)
    scarce = SimpleNamespace(least=lambda free: min(free, needed[False] - 1))
    assert not plan_memory(base, tiny_examples(), choice="auto", **OPTIONS).gradient_checkpointing
    plan = plan_memory(base, tiny_examples(), choice="auto", processes=scarce, **OPTIONS)
    assert plan.gradient_checkpointing
    assert plan.free_bytes == needed[False] - 1
