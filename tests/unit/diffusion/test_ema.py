import pytest
import torch

from loupe.diffusion.ema import MovingAverage, decay_at


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.9999])
def test_the_average_is_that_of_diffusers(decay):
    from diffusers.training_utils import EMAModel

    generator = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(3, 4, generator=generator))
    ours, theirs = MovingAverage({"p": parameter}, decay=decay), EMAModel([parameter], decay=decay)

    for step in range(1, 30):
        with torch.no_grad():
            parameter.add_(torch.randn(3, 4, generator=generator))
        ours.update({"p": parameter}, step=step)
        theirs.step([parameter])

    assert torch.allclose(ours.weights["p"], theirs.shadow_params[0], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(ours.weights["p"], parameter)


def test_the_weights_before_training_are_not_in_the_average():
    parameter = torch.nn.Parameter(torch.full((2,), 1e6))
    average = MovingAverage({"p": parameter}, decay=0.9999)
    with torch.no_grad():
        parameter.fill_(1.0)

    average.update({"p": parameter}, step=1)

    assert torch.equal(average.weights["p"], torch.ones(2))
    assert decay_at(10**6, 0.999) == 0.999
