"""A batch in shares: the same numbers as in one piece, cores all taken, settings of the caller kept."""

import pytest
import torch

from loupe.diffusion.cpu_shares import each_by_itself, n_at_once, n_shares, side_by_side
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.forward_pass import ForwardPass, SharedPass
from loupe.diffusion.unet_forward import UNetForward
from tests.unit.diffusion.tiny_training import tiny_trainer

CPU = DevicePolicy("cpu", "float32", "test")


@pytest.mark.parametrize(
    ("n_rows", "n_threads", "expected"),
    [
        (16, 1, 1),
        (16, 2, 2),
        (16, 3, 1),  # no core may be left over
        (16, 16, 4),  # no more than MOST_SHARES
        (18, 6, 3),
        (6, 4, 2),
        (4, 4, 2),  # two rows in each
        (3, 2, 1),
        (1, 8, 1),
    ],
)
def test_shares_are_equal_and_leave_no_core_over(n_rows, n_threads, expected):
    assert n_shares(n_rows, n_threads=n_threads) == expected


def test_results_come_in_the_order_of_the_rows_and_every_share_has_its_cores(two_cores):
    def work(rows, factors):
        return rows * factors, torch.get_num_threads()

    rows, factors = torch.arange(8.0), torch.full((8,), 3.0)
    results = side_by_side(work, rows, factors, n_shares=2)
    assert torch.equal(torch.cat([part for part, _ in results]), rows * 3)
    assert [threads for _, threads in results] == [1, 1]
    assert torch.get_num_threads() == 2
    later = side_by_side(lambda _: torch.get_num_threads(), rows, n_shares=2)
    assert later == [1, 1]


@pytest.mark.parametrize(("n_threads", "expected"), [(1, 1), (2, 2), (3, 3), (5, 1), (6, 3), (8, 4), (16, 4)])
def test_single_inputs_leave_no_core_over(n_threads, expected):
    assert n_at_once(n_threads=n_threads) == expected


@pytest.mark.parametrize("count", [1, 2])
def test_single_inputs_come_in_their_order_with_their_errors_in_place(two_cores, count):
    def work(item):
        if item == 3:
            raise ValueError("the fourth")
        return item, torch.get_num_threads()

    results = each_by_itself(work, range(5), n_at_once=count)
    assert [next(results) for _ in range(3)] == [(item, 2 // count) for item in range(3)]
    with pytest.raises(ValueError, match="the fourth"):
        next(results)


def test_threads_started_afterwards_have_all_cores(two_cores):
    from concurrent.futures import ThreadPoolExecutor

    side_by_side(lambda rows: rows, torch.arange(4.0), n_shares=2)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == 2


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_a_share_computes_with_the_callers_gradient_setting(two_cores, context):
    with context():
        expected = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        found = side_by_side(
            lambda _: (torch.is_grad_enabled(), torch.is_inference_mode_enabled()), torch.zeros(4), n_shares=2
        )
    assert found == [expected, expected]


def test_an_error_in_a_share_reaches_the_caller(two_cores):
    def work(rows):
        if 3.0 in rows:
            raise ValueError("the second share")
        return rows

    with pytest.raises(ValueError, match="the second share"):
        side_by_side(work, torch.arange(4.0), n_shares=2)


def test_training_in_shares_gives_the_gradients_of_the_whole_batch(tiny_base_model, two_cores):
    shared = tiny_trainer(tiny_base_model, batch_size=4, gradient_accumulation_steps=2, snr_gamma=5.0)
    assert type(shared._pass) is SharedPass
    whole = tiny_trainer(tiny_base_model, batch_size=4, gradient_accumulation_steps=2, snr_gamma=5.0)
    whole._pass = ForwardPass(whole.unet, settings=whole.settings, policy=whole.policy)
    shared_rows, whole_rows = list(shared.run(3)), list(whole.run(3))
    for ours, theirs in zip(shared_rows, whole_rows, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4)
    again = tiny_trainer(tiny_base_model, batch_size=4, gradient_accumulation_steps=2, snr_gamma=5.0)
    assert list(again.run(3)) == shared_rows
    for name, parameter in shared.parameters.items():
        assert torch.equal(parameter, again.parameters[name])


@pytest.mark.parametrize(
    "settings", [{"lora_dropout": 0.1}, {"batch_size": 3}, {"compile": True}], ids=lambda settings: next(iter(settings))
)
def test_what_cannot_be_shared_out_is_trained_in_one_piece(tiny_base_model, two_cores, settings):
    trainer = tiny_trainer(tiny_base_model, **{"batch_size": 4, **settings})
    assert type(trainer._pass) is ForwardPass


def test_a_row_drawn_in_shares_depends_on_no_other_row(tiny_base_model, two_cores):
    unet = tiny_trainer(tiny_base_model).unet.eval()
    forward = UNetForward(unet, policy=CPU)
    generator = torch.Generator().manual_seed(1)
    side = unet.config.sample_size
    noisy = torch.randn(8, unet.config.in_channels, side, side, generator=generator)
    text = torch.randn(8, 5, unet.config.cross_attention_dim, generator=generator)
    timesteps = torch.arange(8) * 100
    predicted = forward(noisy, timesteps, text)
    with torch.no_grad():
        whole = unet(noisy, timesteps, encoder_hidden_states=text).sample
    assert torch.allclose(predicted, whole, rtol=1e-4, atol=1e-5)
    others = torch.randn(8, *noisy.shape[1:], generator=generator)
    others[5] = noisy[5]
    assert torch.equal(forward(others, timesteps, text)[5], predicted[5])
    one_time = forward(noisy, torch.tensor(300), text)
    assert torch.equal(one_time, forward(noisy, torch.full((8,), 300), text))
