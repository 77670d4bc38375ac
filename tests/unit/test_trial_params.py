"""Only known parameters with valid values become a command, and each of them reaches DVC as it was meant."""

from __future__ import annotations

import shlex

import pytest

from loupe.errors import PipelineError
from loupe.params import Params, load_params
from loupe.trial_params import MAX_TRIALS, knobs, plan_trials, queue_command
from tests.run_fixture import ROOT


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


def test_numbers_switches_and_choices_are_offered_and_texts_are_not(params: Params) -> None:
    by_name = {knob.name: knob for knob in knobs(params)}
    assert by_name["train.rank"].kind == "whole number"
    assert by_name["train.learning_rate"].kind == "number"
    assert by_name["train.use_dora"].choices == ("true", "false")
    assert "attention+ff" in by_name["train.target_modules"].choices
    assert by_name["train.snr_gamma"].takes_null
    assert not {"model.base", "data.root", "export.name", "generate.prompts", "train.trackers"} & by_name.keys()
    assert all(knob.meaning for knob in by_name.values()), "each says what it is"


def test_a_grid_of_values_is_one_command_for_all_trials(params: Params) -> None:
    plan = plan_trials(params, {"train.rank": "4, 16", "train.learning_rate": "1e-5"})
    assert plan.count == 2
    assert queue_command(plan) == [
        "dvc", "exp", "run", "--queue", "-S", "train.rank=4,16", "-S", "train.learning_rate=1e-05",
    ]  # fmt: skip


def test_dvc_understands_the_command_as_it_was_meant(params: Params) -> None:
    hydra = pytest.importorskip("dvc.utils.hydra")
    asked = {"train.target_modules": "attention+ff, qv", "train.ema_decay": "null", "train.use_dora": "true"}
    plan = plan_trials(params, asked)
    settings = [word for word in queue_command(plan) if "=" in word]
    sweeps = list(hydra.get_hydra_sweeps({"params.yaml": settings}))
    assert len(sweeps) == plan.count == 2
    first = ["train.target_modules=attention+ff", "train.ema_decay=null", "train.use_dora=true"]
    assert [setting.casefold() for setting in sweeps[0]["params.yaml"]] == first


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"train.rank": "0"}, "train.rank: must be greater than 0"),
        ({"train.rank": "8.5"}, "must be a whole number"),
        ({"train.rank": ""}, "needs a value"),
        ({"train.rank": "4,,8"}, "empty value"),
        ({"train.rank": "4,4"}, "twice"),
        ({"train.rank": "4,04"}, "twice"),
        ({"train.learning_rate": "1e-3, 0.001"}, "twice"),
        ({"train.learning_rate": "nan"}, "train.learning_rate"),
        ({"train.learning_rate": "1e999"}, "train.learning_rate"),
        ({"train.learning_rate": "3e-4; touch x"}, "must be a number"),
        ({"train.rank": "$(id)"}, "must be a whole number"),
        ({"train.use_dora": "yes"}, "must be one of true, false"),
        ({"train.learnin_rate": "1"}, "did you mean train.learning_rate"),
        ({"model.base": "demo"}, "cannot be changed here"),
        ({"--help": "1"}, "cannot be changed here"),
        ({"train.checkpoint_every": "100000"}, "is more than max_steps"),
        ({"train.rank": ",".join(map(str, range(1, MAX_TRIALS + 2)))}, f"at most {MAX_TRIALS}"),
        ({}, "choose a parameter"),
    ],
)  # fmt: skip
def test_what_is_not_valid_is_refused_with_the_reason(params: Params, asked: dict[str, str], said: str) -> None:
    with pytest.raises(PipelineError) as refused:
        plan_trials(params, asked)
    assert said in str(refused.value)


def test_every_wrong_value_is_named_at_once(params: Params) -> None:
    with pytest.raises(PipelineError) as refused:
        plan_trials(params, {"train.rank": "x", "train.alpha": "y"})
    assert "train.rank" in str(refused.value)
    assert "train.alpha" in str(refused.value)


def test_a_trial_must_differ_but_a_grid_may_hold_the_present_values(params: Params) -> None:
    with pytest.raises(PipelineError, match="changes nothing"):
        plan_trials(params, {"train.rank": str(params.train.rank)})
    assert plan_trials(params, {"train.rank": f"{params.train.rank},64"}).count == 2


def test_nothing_typed_is_copied_into_the_command(params: Params) -> None:
    words = queue_command(plan_trials(params, {"train.rank": " 00016", "train.alpha": "1_6"}))
    assert shlex.join(words).endswith("-S train.rank=16 -S train.alpha=16.0")
