import dataclasses
from dataclasses import replace
from threading import Thread

import pytest
import torch
from peft.tuners.lora import LoraLayer

from loupe.diffusion import train_run, trainer_start
from loupe.diffusion.adapter import MAGNITUDE, AdapterConfig
from loupe.diffusion.base_model import base_model_info
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.processes import ALONE
from loupe.diffusion.text_adapter import split_state
from loupe.diffusion.train_run import Leg, plan_for_all, plan_run, run_legs, run_parts, starting_point
from loupe.diffusion.train_settings import TrainSettings
from loupe.diffusion.train_store import TrainStore
from loupe.diffusion.trainer_start import build_trainer
from loupe.errors import PipelineError
from loupe.records import BaseModelInfo
from loupe.workstore import WorkStore, fingerprint
from tests.unit.diffusion.test_training import assert_states_equal
from tests.unit.diffusion.tiny_training import CPU, tiny_examples, tiny_settings, tiny_trainer

ADAPTER = AdapterConfig(4, 8.0, ("to_q", "to_v"), "tiny")


@pytest.fixture
def store(tmp_path):
    return TrainStore(WorkStore(tmp_path), {"run": 1})


def run(store, base, wanted, *, interval=1e9):
    plan = plan_run(wanted, store.usable_steps())
    trainer = tiny_trainer(base) if plan.legs else None
    return plan, list(run_legs(plan.legs, trainer, store, interim_interval_s=interval))


@pytest.mark.parametrize(
    ("wanted", "stored", "legs", "resumed_from"),
    [
        ([2, 4, 5], [], [(0, 2), (2, 4), (4, 5)], None),
        ([2, 4], [2, 4], [], None),
        ([2, 4, 6], [2, 4], [(4, 6)], 4),
        ([2, 4, 6], [2, 4, 5], [(5, 6)], 5),
        ([3, 6], [2, 4, 6], [(2, 3)], 2),
        ([2, 4, 6], [2, 6], [(2, 4)], 2),
        ([2, 4], [3], [(0, 2), (3, 4)], None),
    ],
)
def test_a_plan_computes_what_is_missing_from_the_nearest_state(wanted, stored, legs, resumed_from):
    plan = plan_run(wanted, stored)

    assert [(leg.start, leg.stop) for leg in plan.legs] == legs
    assert plan.resumed_from == resumed_from
    assert plan.n_steps == sum(stop - start for start, stop in legs)
    assert plan.missing == set(wanted) - set(stored)


def test_prolonging_and_a_new_cadence_give_the_undisturbed_states(store, tiny_base_model):
    run(store, tiny_base_model, [2, 4])
    plan, rows = run(store, tiny_base_model, [3, 6])

    assert plan.legs == (Leg(2, 3), Leg(4, 6))
    assert [row.step for row in rows] == [3, 5, 6]
    undisturbed = tiny_trainer(tiny_base_model)
    for step in (3, 6):
        list(undisturbed.run(step))
        assert_states_equal(store.load(step), undisturbed.state())


def test_a_damaged_state_is_said_removed_and_computed_again(store, tiny_base_model, capsys):
    run(store, tiny_base_model, [2, 4])
    whole = store.load(4)
    path = next(store.store.root.rglob("*-000004.safetensors"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.unlink()  # what was read is mapped from the old file
    path.write_bytes(content)

    plan, _ = run(store, tiny_base_model, [2, 4])

    assert "step 4 is damaged" in capsys.readouterr().out
    assert plan.legs == (Leg(2, 4),)
    assert_states_equal(store.load(4), whole)


def test_interim_states_last_until_the_next_one(store, tiny_base_model):
    plan = plan_run([4], store.usable_steps())
    rows = run_legs(plan.legs, tiny_trainer(tiny_base_model), store, interim_interval_s=0)

    assert [(row.step, store.usable_steps()) for row in rows] == [(1, [1]), (2, [2]), (3, [3]), (4, [4])]


def test_an_interim_state_at_a_step_that_is_wanted_now_stays(store, tiny_base_model):
    """The cadence of checkpoints is not in the key: step 2 was none, and becomes one."""
    rows = run_legs(plan_run([4], []).legs, tiny_trainer(tiny_base_model), store, interim_interval_s=0)
    for _ in range(2):
        next(rows)
    rows.close()
    interim = store.load(2)

    plan = plan_for_all([2, 4], store, ALONE)
    assert plan.legs == (Leg(2, 4),)
    list(run_legs(plan.legs, tiny_trainer(tiny_base_model), store, interim_interval_s=0))

    assert store.usable_steps() == [2, 4]
    assert_states_equal(store.load(2), interim)


def test_an_interim_state_is_gone_on_from(store, tiny_base_model):
    plan = plan_run([4], store.usable_steps())
    rows = run_legs(plan.legs, tiny_trainer(tiny_base_model), store, interim_interval_s=0)
    for _ in range(3):
        next(rows)
    rows.close()

    plan, rows = run(store, tiny_base_model, [4])

    assert (plan.resumed_from, [row.step for row in rows]) == (3, [4])
    undisturbed = tiny_trainer(tiny_base_model)
    list(undisturbed.run(4))
    assert_states_equal(store.load(4), undisturbed.state())


OTHER_NUMBERS = {
    "seed": 1, "batch_size": 2, "gradient_accumulation_steps": 2, "compile": True, "optimizer": "prodigy",
    "learning_rate": 1e-4, "lr_scheduler": "linear", "lr_warmup_steps": 0, "adam_betas": (0.9, 0.99),
    "adam_epsilon": 1e-6, "weight_decay": 0.0, "max_grad_norm": 2.0, "lora_dropout": 0.1, "ema_decay": 0.9,
    "noise_offset": 0.1, "snr_gamma": 5.0, "caption_dropout": 0.0, "random_flip": True, "train_text_encoder": True,
    "processes": 2,
}  # fmt: skip
OTHER_ADAPTERS = {"rank": 8, "alpha": 4.0, "target_modules": ("to_q",), "use_dora": True, "use_rslora": True}


def parts(*, examples=None, adapter=ADAPTER, base_sha256="b", policy=CPU, gradient_checkpointing=False, **settings):
    return run_parts(
        tiny_settings(**settings), adapter, examples=examples or tiny_examples(), base_sha256=base_sha256,
        policy=policy, gradient_checkpointing=gradient_checkpointing,
    )  # fmt: skip


def test_everything_that_decides_the_weights_changes_the_key(monkeypatch):
    """One thing at a time, so that nothing is there only by way of another; a new knob must be put here."""
    monkeypatch.setattr(train_run, "optimizer_libraries", lambda name, device: ())
    assert OTHER_NUMBERS.keys() | {"max_steps", "text_encoder_learning_rate"} == {
        field.name for field in dataclasses.fields(TrainSettings)
    }
    assert OTHER_ADAPTERS.keys() | {"base_model"} == {field.name for field in dataclasses.fields(AdapterConfig)}
    changes = [{name: value} for name, value in OTHER_NUMBERS.items()]
    changes += [{"adapter": replace(ADAPTER, **{name: value})} for name, value in OTHER_ADAPTERS.items()]
    changes += [{"examples": tiny_examples(5)}, {"base_sha256": "c"}, {"policy": DevicePolicy("cpu", "bfloat16", "x")}]
    changes += [{"train_text_encoder": True, "text_encoder_learning_rate": 0.5}]
    keys = {fingerprint(parts())} | {fingerprint(parts(**change)) for change in changes}
    assert len(keys) == 1 + len(changes)


@pytest.mark.parametrize("name", ["device_identity", "library_versions", "source_fingerprint"])
def test_another_machine_other_libraries_and_other_code_change_the_key(monkeypatch, name):
    before = fingerprint(parts())
    monkeypatch.setattr(train_run, name, lambda *_: "another")
    assert fingerprint(parts()) != before


def test_an_optimizer_that_is_not_installed_is_refused_before_anything_is_done(monkeypatch):
    monkeypatch.setattr("loupe.diffusion.optimizers.find_spec", lambda _: None)

    with pytest.raises(PipelineError, match="needs the package prodigyopt"):
        parts(optimizer="prodigy")


def test_max_steps_is_in_the_key_only_when_the_schedule_needs_it():
    assert parts(max_steps=8) == parts(max_steps=9)
    assert parts(max_steps=8, lr_scheduler="cosine") != parts(max_steps=9, lr_scheduler="cosine")


def test_gradient_checkpointing_is_in_the_key_only_of_a_compiled_run():
    """There it gives another graph, with other bytes; without, test_resume.py shows that it changes none."""
    assert parts(gradient_checkpointing=True) == parts(gradient_checkpointing=False)
    assert "gradient_checkpointing" not in parts()["train"]
    assert parts(gradient_checkpointing=True, compile=True) != parts(gradient_checkpointing=False, compile=True)


@pytest.mark.parametrize("kind", [{"use_rslora": True}, {"use_dora": True}], ids=str)
def test_every_setting_of_a_run_reaches_its_trainer(tiny_base_model, kind):
    """Most tests build their trainer by themselves (tiny_training.py); this is the one that the stage has."""
    adapter = AdapterConfig(4, 6.0, ("to_q", "to_v"), "tiny", **kind)
    info = base_model_info(tiny_base_model, name="tiny", revision=None)
    info = info.model_copy(update={"prediction_type": "v_prediction", "scaling_factor": 0.5})
    settings = tiny_settings(seed=3, lora_dropout=0.3, train_text_encoder=True)
    trainer = build_trainer(
        tiny_base_model, info, tiny_examples(), settings=settings, adapter=adapter, policy=CPU,
        gradient_checkpointing=True,
    )  # fmt: skip

    unet, text_encoder = trainer.models.unet, trainer.models.text_encoder
    assert unet.is_gradient_checkpointing
    assert (trainer.schedule.prediction_type, trainer.schedule.scaling_factor) == ("v_prediction", 0.5)
    expected = tiny_trainer(tiny_base_model, seed=3, target_modules=("to_q", "to_v"), **kind).state().adapter
    of_unet, of_text = split_state(trainer.state().adapter)
    assert of_unet.keys() == expected.keys()
    assert all(torch.equal(of_unet[key], expected[key]) for key in expected)
    for model, n_layers in ((unet, 16), (text_encoder, 4)):
        layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        assert len(layers) == n_layers
        assert {layer.scaling["default"] for layer in layers} == {adapter.scaling}
        assert {layer.lora_dropout["default"].p for layer in layers} == {0.3}
    assert any(key.endswith(MAGNITUDE) for key in of_text) is adapter.use_dora


def test_examples_that_are_not_finite_are_refused_before_a_model_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(trainer_start, "load_unet", lambda *_, **__: pytest.fail("a model was loaded"))
    info = BaseModelInfo(
        name="tiny", revision=None, sha256="b", prediction_type="epsilon", latent_channels=4, scaling_factor=0.18215,
        sample_size_px=64,
    )  # fmt: skip
    examples = tiny_examples()
    examples.mean[2] = float("nan")

    with pytest.raises(PipelineError, match=r"the latents of image2\."):
        build_trainer(tmp_path, info, examples, settings=tiny_settings(), adapter=ADAPTER, policy=CPU)


def test_a_caption_of_val_does_not_change_the_examples_identity():
    examples = tiny_examples()
    with_val = dataclasses.replace(examples, embeddings=torch.cat([examples.embeddings, torch.ones(1, 77, 16)]))
    assert with_val.sha256() == examples.sha256()

    swapped = dataclasses.replace(examples, caption_index=examples.caption_index.flip(0))
    assert swapped.sha256() != examples.sha256()


def test_a_raised_max_steps_says_why_a_falling_schedule_starts_anew(tmp_path, tiny_base_model):
    store = WorkStore(tmp_path)
    run(TrainStore(store, parts(lr_scheduler="linear", max_steps=4)), tiny_base_model, [1])
    longer = TrainStore(store, parts(lr_scheduler="linear", max_steps=6))

    sentence = starting_point(plan_run([6], longer.usable_steps()), longer)

    assert sentence.startswith("train: starts at step 0, because this decides the weights and has changed:")
    assert "train.max_steps: 4 -> 6" in sentence


def test_a_second_trainer_of_the_same_run_waits_and_then_finds_everything(store, tiny_base_model, capsys):
    plans = []

    def second_trainer():
        with store.lock():
            plans.append(plan_run([2], store.usable_steps()))

    with store.lock():
        thread = Thread(target=second_trainer)
        thread.start()
        run(store, tiny_base_model, [2])
        assert thread.is_alive()
        assert not plans
    thread.join(60)

    assert plans == [plan_run([2], [2])]
    assert "Another process works on train" in capsys.readouterr().out


def test_starting_anew_says_what_differs(tmp_path, tiny_base_model):
    store = WorkStore(tmp_path)
    run(TrainStore(store, parts()), tiny_base_model, [1])
    anew = TrainStore(store, parts(learning_rate=0.5))

    assert "train.learning_rate: 0.01 -> 0.5" in starting_point(plan_run([2], anew.usable_steps()), anew)
    same = TrainStore(store, parts())
    assert starting_point(plan_run([2], same.usable_steps()), same) == "train: resumed from step 1"


@pytest.mark.parametrize("damage", [b"", b'{"train": {', b"[1]"])
def test_a_damaged_note_of_another_run_stops_no_new_one(store, tiny_base_model, damage):
    run(store, tiny_base_model, [1])
    note = store.store.path("train", store.key, ".json")
    note.write_bytes(damage)
    another = TrainStore(store.store, {"run": 2})

    assert starting_point(plan_run([1], another.usable_steps()), another) == "train: starts at step 0"
