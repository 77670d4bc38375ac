"""Every way of training goes on from its stored states to the same bytes, and draws what belongs to its place alone."""

from contextlib import contextmanager
from itertools import combinations

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from loupe.diffusion import training
from loupe.diffusion.adapter import adapter_state
from loupe.diffusion.ema import decay_at
from loupe.diffusion.noise import visits
from loupe.diffusion.tensor_files import tensor_bytes
from loupe.diffusion.train_store import TrainStore
from loupe.errors import PipelineError
from loupe.workstore import WorkStore
from tests.unit.diffusion.test_training import assert_states_equal, train
from tests.unit.diffusion.tiny_training import tiny_examples, tiny_trainer

STEPS = 5
KNOBS = {
    "adamw": {},
    "accumulation": {"batch_size": 2, "gradient_accumulation_steps": 2},
    "cosine": {"lr_scheduler": "cosine"},
    "ema": {"ema_decay": 0.9},
    "dropout": {"lora_dropout": 0.3},
    "dora": {"use_dora": True, "target_modules": ("to_q", "conv1")},
    "rslora": {"use_rslora": True},
    "random flip": {"random_flip": True},
    "prodigy": {"optimizer": "prodigy", "learning_rate": 1.0},
    "all of it": {
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "ema_decay": 0.9,
        "lora_dropout": 0.3,
        "use_dora": True,
        "snr_gamma": 5.0,
        "noise_offset": 0.1,
    },
}


@pytest.mark.parametrize("name", KNOBS)
def test_a_run_interrupted_twice_ends_with_the_bytes_of_an_undisturbed_one(tiny_base_model, tmp_path, name):
    if name == "prodigy":
        pytest.importorskip("prodigyopt")
    _assert_resumes(tiny_base_model, tmp_path, KNOBS[name])


def test_the_loss_scale_goes_on_where_it_was(tiny_base_model, tmp_path):
    """As in float16, where it has been halved by an overflow: one that began anew would overflow again."""
    undisturbed = with_halved_scale(tiny_trainer(tiny_base_model))
    rows = train(undisturbed, STEPS)
    store = TrainStore(WorkStore(tmp_path), {"run": "scaled"})
    first = with_halved_scale(tiny_trainer(tiny_base_model))
    train(first, 2)
    store.save(first.state())
    assert store.load(2).scaler == first.scaler.state_dict()
    assert store.load(2).scaler["scale"] == 128.0

    later = with_scale(tiny_trainer(tiny_base_model))
    later.restore(store.load(2))
    assert train(later, STEPS) == rows[2:]
    assert_states_equal(later.state(), undisturbed.state())
    assert later.state().scaler["_growth_tracker"] == STEPS  # all since the overflow, which was in the first one


def with_scale(trainer):
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    return trainer


def with_halved_scale(trainer):
    """The first backward pass overflows, as long as the scale is the first."""
    with_scale(trainer)
    backward = trainer._backward

    def overflowing(step, part):
        loss = backward(step, part)
        if trainer.scaler.get_scale() == 256.0:
            next(iter(trainer.parameters.values())).grad.fill_(float("inf"))
        return loss

    trainer._backward = overflowing
    return trainer


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("name", ["adamw", "accumulation", "dropout"])
def test_it_does_so_where_two_cores_share_a_batch(tiny_base_model, tmp_path, name):
    _assert_resumes(tiny_base_model, tmp_path, KNOBS[name] | {"batch_size": 4})


def _assert_resumes(tiny_base_model, folder, knobs):
    """Six examples, four per step: both interruptions fall inside an epoch. Each state goes through its file."""
    undisturbed = tiny_trainer(tiny_base_model, **knobs)
    rows = train(undisturbed, STEPS)
    store = TrainStore(WorkStore(folder), {"run": str(knobs)})

    trainer = tiny_trainer(tiny_base_model, **knobs)
    for stop in (2, 4):
        train(trainer, stop)
        store.save(trainer.state())
        train(trainer, stop + 1)  # what was computed after the last stored state is lost, and must not be felt
        trainer = tiny_trainer(tiny_base_model, **knobs)
        trainer.restore(store.load(stop))
    train(trainer, STEPS)

    ended, expected = trainer.state(), undisturbed.state()
    assert ended.rows == tuple(rows)
    assert_states_equal(ended, expected)
    assert _bytes(ended) == _bytes(expected)


def _bytes(state):
    return tensor_bytes(state.checkpoint_adapter, metadata={})


@pytest.mark.parametrize("asked_after", [1, 2, 4])
def test_a_step_that_was_begun_before_the_last_was_read_is_in_the_state(tiny_base_model, asked_after):
    calm, ahead = tiny_trainer(tiny_base_model), tiny_trainer(tiny_base_model)
    ahead.runs_ahead = True  # as on a GPU
    rows = []
    for row in ahead.run(5):
        rows.append(row)
        if row.step == asked_after:
            state = ahead.state()
            assert state.step == asked_after + 1
    assert rows == train(calm, 5)
    assert_states_equal(ahead.state(), calm.state())

    later = tiny_trainer(tiny_base_model)
    later.restore(state)
    assert train(later, 5) == rows[asked_after + 1 :]
    assert_states_equal(later.state(), calm.state())


class OperatorReads(TorchDispatchMode):
    """Notes the operators that make the host wait for a GPU: reading a number, or how many there are of something."""

    WAITING = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten._unique")

    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if str(operator).startswith(self.WAITING):
            self.found.append(str(operator))
        return operator(*args, **(kwargs or {}))


class CallReads(TorchFunctionMode):
    """Notes what copies a tensor to the host: on the CPU no operator is called for it."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in ("tolist", "cpu", "numpy"):
            self.found.append(function.__name__)
        return function(*args, **(kwargs or {}))


@contextmanager
def host_reads():
    found = []
    with OperatorReads(found), CallReads(found):
        yield found


@pytest.mark.parametrize("name", ["adamw", "accumulation", "ema", "dora", "all of it"])
def test_a_step_that_runs_ahead_reads_nothing_back(tiny_base_model, monkeypatch, name):
    """The batch is made on the host, so it is handed in here; all else would be on the GPU."""
    trainer = tiny_trainer(tiny_base_model, **KNOBS[name])
    trainer.runs_ahead = True
    next(trainer.run(1))
    options = {"schedule": trainer.schedule, "settings": trainer.settings}
    firsts = [trainer._first(step, part) for step in (2, 3) for part in range(trainer.settings.forward_passes)]
    made = {first: training.make_batch(trainer.examples, first, **options) for first in firsts}
    monkeypatch.setattr(training, "make_batch", lambda _, first, **options: made[first])
    with host_reads() as found:
        for step in (2, 3):
            trainer._launched.append(trainer._launch(step))
    assert found == []
    with host_reads() as found:
        bool(trainer._launched[0].numbers.isfinite().all())
        trainer._read_launched()
    assert found == ["aten._local_scalar_dense.default", "tolist", "tolist"]  # the counting counts


def test_a_step_that_is_not_finite_changes_nothing_when_its_numbers_are_read_late(tiny_base_model):
    trainer, calm = tiny_trainer(tiny_base_model), tiny_trainer(tiny_base_model)
    trainer.runs_ahead = True
    train(trainer, 2)
    train(calm, 2)
    backward = trainer._backward

    def poisoned(step, part):
        loss = backward(step, part)
        next(iter(trainer.parameters.values())).grad[0, 0] = float("nan")
        return loss

    trainer._backward = poisoned
    trainer._launched.append(trainer._launch(3))
    with pytest.raises(PipelineError, match=r"Training stopped at step 3: .* gradient norm nan"):
        trainer.state()
    assert trainer.rows == calm.rows
    trainer._launched.clear()
    assert_states_equal(trainer.state(), calm.state())


def test_going_on_neither_repeats_nor_draws_again_what_was_seen(tiny_base_model, monkeypatch):
    firsts = []
    original = training.Trainer._backward

    def recorded(trainer, step, part):
        firsts.append(4 * (step - 1) + part)
        return original(trainer, step, part)

    monkeypatch.setattr(training.Trainer, "_backward", recorded)
    trainer = tiny_trainer(tiny_base_model)
    for stop in (1, 2, 3):
        state = trainer.state() if trainer.step else None
        trainer = tiny_trainer(tiny_base_model)
        if state:
            trainer.restore(state)
        train(trainer, stop)

    seen = [visit for first in firsts for visit in visits(first, 4, n_examples=6, seed=0)]
    assert [visit.position for visit in seen] == list(range(12))
    assert sorted(visit.index for visit in seen[:6]) == sorted(visit.index for visit in seen[6:]) == list(range(6))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_training_leaves_the_global_generator_alone(tiny_base_model, dropout):
    trainer = tiny_trainer(tiny_base_model, lora_dropout=dropout)
    before = torch.get_rng_state()

    train(trainer, 1)

    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_is_decided_by_seed_and_place_and_is_not_there_without(tiny_base_model):
    def after_two_steps(global_seed=0, **knobs):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(global_seed)
            trainer = tiny_trainer(tiny_base_model, **knobs)
            train(trainer, 2)
        return adapter_state(trainer.unet)

    dropped, again = (after_two_steps(number, lora_dropout=0.3) for number in (0, 1))
    whole = after_two_steps()

    assert all(torch.equal(dropped[key], again[key]) for key in dropped)
    assert any(not torch.equal(dropped[key], whole[key]) for key in dropped)


def test_every_forward_pass_drops_something_else(tiny_base_model):
    """Two passes in each of two steps, through a linear layer and a convolution."""
    knobs = {"lora_dropout": 0.5, "batch_size": 2, "gradient_accumulation_steps": 2}
    trainer = tiny_trainer(tiny_base_model, **knobs, target_modules=("to_q", "conv1"))
    layers = {
        name: m for name, m in trainer.unet.named_modules() if isinstance(m, torch.nn.Dropout) and "lora_" in name
    }
    kept = {kind: [] for kind in ("to_q", "conv1")}
    for kind, masks in kept.items():
        layer = next(module for name, module in layers.items() if f".{kind}." in name)
        layer.register_forward_hook(lambda _, inputs, output, masks=masks: masks.append(output != 0))

    train(trainer, 2)

    for masks in kept.values():
        assert len(masks) == 4
        assert not any(torch.equal(one, other) for one, other in combinations(masks, 2))
        assert torch.stack(masks).float().mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", ["adamw", "all of it"])
def test_gradient_checkpointing_changes_no_byte(tiny_base_model, name):
    plain, recomputing = (
        tiny_trainer(tiny_base_model, **KNOBS[name], gradient_checkpointing=on) for on in (False, True)
    )
    rows = {plain: [], recomputing: []}
    for trainer, counted in rows.items():

        def count(_, inputs, counted=counted):
            counted.append(len(inputs[0]))

        trainer.unet.mid_block.resnets[-1].register_forward_pre_hook(count)

    assert train(recomputing, 2) == train(plain, 2)
    assert_states_equal(recomputing.state(), plain.state())
    assert sum(rows[recomputing]) == 2 * sum(rows[plain]) > 0


def test_compile_puts_the_unet_through_torch_compile(tiny_base_model, monkeypatch):
    calls = []

    def compiled(unet, *, dynamic):
        assert dynamic is False, "a batch has one shape"

        def predict(*arguments, **named):
            calls.append(unet)
            return unet(*arguments, **named)

        return predict

    monkeypatch.setattr(torch, "compile", compiled)
    plain, fast = tiny_trainer(tiny_base_model), tiny_trainer(tiny_base_model, compile=True)

    assert train(fast, 1) == train(plain, 1)
    assert calls == [fast.unet]


# --- the average -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_holds_the_average_of_the_weights_after_each_step(tiny_base_model):
    decay = 0.6
    trainer = tiny_trainer(tiny_base_model, ema_decay=decay)
    average = None
    for row in trainer.run(4):
        weights = adapter_state(trainer.unet)
        kept = decay_at(row.step, decay)
        average = weights if average is None else {k: kept * average[k] + (1 - kept) * weights[k] for k in weights}

    state = trainer.state()

    assert state.checkpoint_adapter is state.average
    assert all(torch.allclose(state.average[key], average[key], rtol=1e-5, atol=1e-8) for key in average)
    assert any(not torch.equal(state.average[key], state.adapter[key]) for key in average)


def test_averaging_changes_no_step_of_training(tiny_base_model):
    plain, averaged = tiny_trainer(tiny_base_model), tiny_trainer(tiny_base_model, ema_decay=0.9)

    assert train(averaged, 3) == train(plain, 3)
    assert plain.state().checkpoint_adapter is not None
    assert not plain.state().average


def test_the_weights_of_the_checkpoint_are_in_the_unet_for_the_block_only(tiny_base_model):
    trainer = tiny_trainer(tiny_base_model, ema_decay=0.9)
    train(trainer, 2)
    trained = adapter_state(trainer.unet)

    with trainer.checkpoint_weights():
        inside = adapter_state(trainer.unet)
    average = trainer.state().average

    assert all(torch.equal(inside[key], average[key]) for key in average)
    assert all(torch.equal(adapter_state(trainer.unet)[key], trained[key]) for key in trained)


# --- refused before the first step -----------------------------------------------------------------------------------


def test_examples_that_are_not_finite_are_named_before_the_first_step():
    from loupe.diffusion.batches import require_finite

    examples = tiny_examples(30)
    require_finite(examples)
    examples.mean[3, 0, 0, 0] = torch.nan
    examples.std[5, 1] = torch.inf
    examples.embeddings[8] = torch.nan  # the caption of image7

    with pytest.raises(PipelineError) as caught:
        require_finite(examples)
    message = str(caught.value)
    assert "the latents of image3, image5;" in message
    assert "the captions' vectors of image7." in message
    assert "dvc repro --force encode" in message

    examples.mean[:] = torch.nan
    with pytest.raises(PipelineError, match=r"image19 and 10 more;"):
        require_finite(examples)
