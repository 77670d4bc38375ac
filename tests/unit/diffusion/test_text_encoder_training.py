"""Training the text encoder's adapter with the UNet's: what learns, from which words, at which rate; what is kept."""

from dataclasses import replace

import pytest
import torch

from loupe.diffusion.adapter import adapter_parameters
from loupe.diffusion.batches import make_batch
from loupe.diffusion.latent_files import EMPTY_ROW
from loupe.diffusion.model_loading import load_text_encoder
from loupe.diffusion.noise import add_noise, visits
from loupe.diffusion.text_adapter import split_state
from loupe.diffusion.train_store import TrainStore
from loupe.errors import PipelineError
from loupe.workstore import WorkStore
from tests.unit.diffusion.test_training import assert_states_equal
from tests.unit.diffusion.tiny_training import tiny_examples, tiny_settings, tiny_trainer

BOTH = {"train_text_encoder": True, "lr_warmup_steps": 0}


def _run(trainer, n_steps):
    return list(trainer.run(n_steps))


def _own_vectors(trainer, ids):
    with torch.inference_mode():
        return trainer.models.text_encoder(ids).last_hidden_state


# --- what learns -----------------------------------------------------------------------------------------------------


def test_only_the_adapters_of_both_models_learn(tiny_base_model):
    trainer = tiny_trainer(tiny_base_model, **BOTH)
    models = {"unet.": trainer.models.unet, "text_encoder.": trainer.models.text_encoder}
    parameters = {prefix + name: p for prefix, model in models.items() for name, p in model.named_parameters()}
    before = {name: p.detach().clone() for name, p in parameters.items()}
    _run(trainer, 2)

    learn = {name for name, p in parameters.items() if p.requires_grad}
    assert {id(parameters[name]) for name in learn} == {id(p) for p in trainer.parameters.values()}
    assert learn == {name for name in parameters if "lora_" in name}
    assert {name for name, p in parameters.items() if p.grad is not None} == learn
    moved = {name for name in parameters if not torch.equal(parameters[name], before[name])}
    assert moved == learn  # the adapters of both, every A and every B
    of_text = [name for name in learn if name.startswith("text_encoder.")]
    assert len(of_text) == 4 * 2  # A and B of q, k, v and out in the one layer


def test_without_it_the_state_and_the_words_are_as_they_always_were(tiny_base_model):
    trainer = tiny_trainer(tiny_base_model)
    _run(trainer, 1)
    state = trainer.state()
    assert trainer.models.text_encoder is None
    assert state.adapter.keys() == adapter_parameters(trainer.models.unet).keys()
    batch = make_batch(trainer.examples, 0, schedule=trainer.schedule, settings=trainer.settings)
    assert batch.text.dtype == torch.float32


def test_the_gradient_norm_that_is_clipped_is_that_of_both(tiny_base_model):
    trainer = tiny_trainer(tiny_base_model, **BOTH, max_grad_norm=1e9)
    (row,) = _run(trainer, 1)
    squares = {key: float(p.grad.square().sum()) for key, p in trainer.parameters.items()}
    of_text = sum(square for key, square in squares.items() if key.startswith("text_encoder."))
    assert of_text > 0
    assert row.grad_norm == pytest.approx(sum(squares.values()) ** 0.5, rel=1e-5)

    clipped = tiny_trainer(tiny_base_model, **BOTH, max_grad_norm=row.grad_norm / 10)
    _run(clipped, 1)
    norm = sum(float(p.grad.square().sum()) for p in clipped.parameters.values()) ** 0.5
    assert norm == pytest.approx(row.grad_norm / 10, rel=1e-4)


def test_the_text_encoder_learns_at_its_own_rate_on_the_same_schedule(tiny_base_model):
    """Adam's first step moves every B by the learning rate, whatever its gradient is."""
    own = {"learning_rate": 1e-2, "text_encoder_learning_rate": 1e-3, "weight_decay": 0.0}
    trainer = tiny_trainer(tiny_base_model, **{**BOTH, "lr_warmup_steps": 4}, **own)
    _run(trainer, 1)
    of_unet, of_text = split_state(trainer.state().adapter)
    for state, rate in ((of_unet, 1e-2 / 4), (of_text, 1e-3 / 4)):
        steps = torch.cat([tensor.flatten() for key, tensor in state.items() if "lora_B" in key])
        assert float(steps.abs().median()) == pytest.approx(rate, rel=1e-2)

    alike = tiny_trainer(tiny_base_model, **BOTH, learning_rate=1e-2)
    given = tiny_trainer(tiny_base_model, **BOTH, learning_rate=1e-2, text_encoder_learning_rate=1e-2)
    _run(alike, 2)
    _run(given, 2)
    for key, tensor in alike.state().adapter.items():
        torch.testing.assert_close(given.state().adapter[key], tensor, rtol=1e-5, atol=1e-7)


# --- from which words ------------------------------------------------------------------------------------------------


def test_each_image_has_the_tokens_of_its_own_caption(tiny_base_model):
    trainer = tiny_trainer(tiny_base_model, **BOTH, caption_dropout=0.5)
    examples, settings = trainer.examples, trainer.settings
    dropped = 0
    for first in range(0, 24, settings.batch_size):
        batch = make_batch(examples, first, schedule=trainer.schedule, settings=settings)
        assert (batch.text.dtype, batch.text.shape) == (torch.int64, (settings.batch_size, 77))
        seen = visits(first, settings.batch_size, n_examples=len(examples.image_ids), seed=settings.seed)
        for ids, visit in zip(batch.text, seen, strict=True):
            own = examples.token_ids[examples.caption_index[visit.index]]
            is_empty = torch.equal(ids, examples.token_ids[EMPTY_ROW])
            assert is_empty or torch.equal(ids, own)
            dropped += is_empty
    assert 0 < dropped < 24


def test_the_cached_vectors_are_not_used(tiny_base_model):
    trainer = tiny_trainer(tiny_base_model, **BOTH)
    expected = _run(trainer, 2)
    examples = tiny_examples()
    other = tiny_trainer(tiny_base_model, examples=replace(examples, embeddings=examples.embeddings + 5), **BOTH)
    assert _run(other, 2) == expected


def test_an_adapter_that_has_not_learnt_trains_on_the_base_models_vectors(tiny_base_model):
    """The first loss is that of a UNet trained on the cache of these same captions."""
    examples = tiny_examples()
    text_encoder = load_text_encoder(tiny_base_model, device="cpu", dtype=torch.float32)
    with torch.inference_mode():
        vectors = text_encoder(examples.token_ids).last_hidden_state
    cached = tiny_trainer(tiny_base_model, examples=replace(examples, embeddings=vectors.clone()))
    assert _run(tiny_trainer(tiny_base_model, **BOTH), 1)[0].loss == pytest.approx(_run(cached, 1)[0].loss, rel=1e-5)


# --- does it learn ---------------------------------------------------------------------------------------------------


def _fixed_loss(trainer, vectors):
    """The loss of every image at one timestep on fixed noise, with the vectors [U, T, D] of the captions."""
    examples = trainer.examples
    noise = torch.randn(examples.mean.shape, generator=torch.Generator().manual_seed(1))
    timesteps = torch.full((len(noise),), 900)
    noisy = add_noise(examples.mean * 0.18215, noise, trainer.schedule.alphas_cumprod[timesteps])
    with torch.inference_mode():
        predicted = trainer.models.unet(noisy, timesteps, encoder_hidden_states=vectors[examples.caption_index]).sample
    return float((predicted - noise).square().mean())


def test_it_learns_words_and_the_pictures_need_them(tiny_base_model):
    """Six images learnt by heart: better than by the UNet alone, and worse with the base model's vectors put back,
    which is what a text encoder lost on the way to the file would do.
    """
    steps = {"max_steps": 40, "caption_dropout": 0.0, "batch_size": 6, "lr_warmup_steps": 0}
    trainer = tiny_trainer(tiny_base_model, **steps, train_text_encoder=True)
    before = _own_vectors(trainer, trainer.examples.token_ids).clone()
    at_start = _fixed_loss(trainer, before)
    _run(trainer, 40)
    after = _own_vectors(trainer, trainer.examples.token_ids)
    alone = tiny_trainer(tiny_base_model, examples=replace(trainer.examples, embeddings=before), **steps)
    _run(alone, 40)

    assert ((after - before).abs().amax(dim=(1, 2)) > 0.5).all()
    learnt = _fixed_loss(trainer, after)
    assert learnt < 0.9 * at_start
    assert learnt < _fixed_loss(alone, before) - 0.01
    assert learnt < _fixed_loss(trainer, before) - 0.01


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_average_optimizer_and_checkpoint_hold_both(tiny_base_model):
    trainer = tiny_trainer(tiny_base_model, **BOTH, ema_decay=0.9)
    _run(trainer, 3)
    state = trainer.state()
    of_unet, of_text = split_state(state.checkpoint_adapter)
    assert of_unet.keys() == adapter_parameters(trainer.models.unet).keys()
    assert of_text.keys() == adapter_parameters(trainer.models.text_encoder).keys()
    assert state.average.keys() == state.adapter.keys() == trainer.parameters.keys()
    assert all(f"{key}/exp_avg" in state.optimizer for key in trainer.parameters)
    key = "encoder.layers.0.self_attn.q_proj.lora_B.weight"
    assert not torch.equal(of_text[key], state.adapter[f"text_encoder.{key}"])  # averaged, not the present weights

    with trainer.checkpoint_weights():
        assert torch.equal(trainer.models.state()[f"text_encoder.{key}"], of_text[key])
    assert torch.equal(trainer.models.state()[f"text_encoder.{key}"], state.adapter[f"text_encoder.{key}"])


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"text_encoder_learning_rate": 3e-3, "use_dora": True, "ema_decay": 0.9, "lora_dropout": 0.3},
        {"batch_size": 2, "gradient_accumulation_steps": 2, "lr_scheduler": "cosine"},
    ],
    ids=["plain", "own rate, DoRA, average, dropout", "accumulation, cosine"],
)
def test_a_run_interrupted_twice_ends_with_the_bytes_of_an_undisturbed_one(tiny_base_model, tmp_path, knobs):
    """Six examples, four per step: both interruptions fall inside an epoch. Each state goes through its file."""
    undisturbed = tiny_trainer(tiny_base_model, **BOTH, **knobs)
    rows = _run(undisturbed, 5)
    store = TrainStore(WorkStore(tmp_path), {"run": 1})

    trainer = tiny_trainer(tiny_base_model, **BOTH, **knobs)
    for stop in (2, 4):
        _run(trainer, stop)
        store.save(trainer.state())
        _run(trainer, stop + 1)  # what was computed after the last stored state is lost, and must not be felt
        trainer = tiny_trainer(tiny_base_model, **BOTH, **knobs)
        trainer.restore(store.load(stop))
    _run(trainer, 5)
    ended, expected = trainer.state(), undisturbed.state()
    assert ended.rows == tuple(rows)
    assert_states_equal(ended, expected)


def test_a_state_without_or_with_a_text_encoder_too_many_is_refused(tiny_base_model):
    both, one = tiny_trainer(tiny_base_model, **BOTH), tiny_trainer(tiny_base_model)
    with pytest.raises(PipelineError, match="does not fit this CLIPTextModel"):
        both.restore(one.state())
    with pytest.raises(PipelineError, match=r"does not fit this UNet.*text_encoder\."):
        one.restore(both.state())


def test_dropout_acts_on_the_text_encoders_adapter_alone_and_belongs_to_the_visit(tiny_base_model):
    knobs = {**BOTH, "lora_dropout": 0.5}
    first, again, without = (tiny_trainer(tiny_base_model, **k) for k in (knobs, knobs, BOTH))
    rows = _run(first, 3)
    torch.manual_seed(99)  # what others have drawn must not be felt
    assert _run(again, 3) == rows
    assert _run(without, 3) != rows
    in_training = {name for name, module in first.models.text_encoder.named_modules() if module.training}
    assert in_training
    assert all("_proj" in name for name in in_training)


def test_the_settings_say_at_which_rate_the_text_encoder_learns():
    assert tiny_settings(learning_rate=0.5, train_text_encoder=True).text_learning_rate == 0.5
    own = tiny_settings(learning_rate=0.5, train_text_encoder=True, text_encoder_learning_rate=0.1)
    assert own.text_learning_rate == 0.1
