"""What training does with the memory there is, and what it says before it starts."""

from dataclasses import replace

import pytest

from loupe.diffusion import train_memory
from loupe.diffusion.adapter import AdapterConfig
from loupe.diffusion.memory import run_bytes
from loupe.diffusion.train_memory import plan_memory
from loupe.diffusion.validation import ROWS_AT_ONCE
from tests.tiny_models import build_tiny_base_model
from tests.unit.diffusion.tiny_training import ATTENTION, CPU, tiny_examples, tiny_settings

ADAPTER = AdapterConfig(rank=4, alpha=8, target_modules=ATTENTION, base_model="tiny")
OPTIONS = {"settings": tiny_settings(batch_size=4), "adapter": ADAPTER, "policy": CPU}


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
    assert (plain.setting.validation_rows, plain.setting.has_average) == (ROWS_AT_ONCE, False)
    assert averaged.setting == replace(plain.setting, has_average=True)
    assert "The nearest setting that takes less: " in plain.why_full()
