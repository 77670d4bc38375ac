from types import SimpleNamespace

import pytest

from loupe.diffusion import text, trial_run
from loupe.diffusion.adapter import AdapterConfig
from tests.unit.diffusion.tiny_training import ATTENTION, CPU, tiny_examples, tiny_settings, tiny_trainer


@pytest.mark.parametrize("runs_ahead", [False, True])
def test_what_is_timed_is_a_whole_step_whether_or_not_the_next_would_be_begun(tiny_base_model, monkeypatch, runs_ahead):
    """On a GPU a row comes when the next step has begun: the last row of a run then takes no time at all."""
    trainer = tiny_trainer(tiny_base_model)
    trainer.runs_ahead = runs_ahead
    monkeypatch.setattr(trial_run, "build_trainer", lambda *_, **__: trainer)
    looks = []
    monkeypatch.setattr(trial_run, "_now", lambda policy: looks.append((trainer.step, len(trainer.rows))) or 0.0)

    done = trial_run.try_training(
        tiny_base_model, None, tiny_examples(), settings=tiny_settings(), policy=CPU, gradient_checkpointing=False,
        adapter=AdapterConfig(4, 8.0, ATTENTION, "tiny"),
    )  # fmt: skip

    assert done.n_steps == trial_run.MAX_TRAINING_STEPS == 3
    assert looks == [(0, 0), (1, 1), (1, 1), (2, 2), (2, 2), (3, 3)]
    assert done.loss == trainer.rows[0].loss


@pytest.mark.parametrize(
    ("compiled", "seconds", "expected"),
    [
        (True, [0, 200, 200, 203, 203, 206], (3, 3.0, 197.0)),
        (True, [0, 200, 200, 207], (2, 7.0, 193.0)),
        (False, [0, 200], (1, 200.0, 0.0)),
    ],
)
def test_a_step_that_compiles_is_not_taken_for_what_every_step_costs(
    tiny_base_model, monkeypatch, compiled, seconds, expected
):
    monkeypatch.setattr(trial_run, "build_trainer", lambda *_, **__: tiny_trainer(tiny_base_model))
    clock = iter(seconds)
    monkeypatch.setattr(trial_run, "_now", lambda _policy: float(next(clock)))

    done = trial_run.try_training(
        tiny_base_model, None, tiny_examples(), settings=tiny_settings(compile=compiled), policy=CPU,
        gradient_checkpointing=False, adapter=AdapterConfig(4, 8.0, ATTENTION, "tiny"),
    )  # fmt: skip

    assert (done.n_steps, done.step_s, done.compile_s) == expected


@pytest.mark.parametrize(("device", "at_once"), [("cpu", 2), ("mps", 1)])
def test_only_a_cpu_encodes_texts_from_several_threads(monkeypatch, device, at_once):
    import torch

    asked = []

    def each_by_itself(_work, items, *, n_at_once):
        asked.append(n_at_once)
        return iter(items)

    monkeypatch.setattr(text, "n_at_once", lambda *, n_threads: 2)
    monkeypatch.setattr(text, "each_by_itself", each_by_itself)
    text.embed_tokens(torch.zeros(2, 77), text_encoder=SimpleNamespace(device=SimpleNamespace(type=device)))

    assert asked == [at_once]
