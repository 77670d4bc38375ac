import pytest
import torch

from loupe.diffusion import device
from loupe.errors import PipelineError


@pytest.fixture
def machine(monkeypatch):
    """Pretends that the machine has the named devices, and bfloat16 or not."""

    def pretend(*kinds: str, bf16: bool = True) -> None:
        monkeypatch.delenv(device.DEVICE_VARIABLE, raising=False)
        monkeypatch.delenv(device.DTYPE_VARIABLE, raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)

    return pretend


@pytest.mark.parametrize(
    ("kinds", "bf16", "expected"),
    [
        ((), True, ("cpu", "float32")),
        (("cuda", "mps"), True, ("cuda", "bfloat16")),
        (("cuda",), False, ("cuda", "float16")),
        (("mps",), True, ("mps", "float32")),
    ],
)
def test_the_policy_of_each_machine(machine, kinds, bf16, expected):
    machine(*kinds, bf16=bf16)

    policy = device.choose_device()

    assert (policy.device, policy.dtype_name) == expected
    assert policy.dtype is getattr(torch, expected[1])
    assert policy.reason.startswith(expected[0])


def test_the_variable_overrides_the_best_device(machine, monkeypatch):
    machine("cuda")
    monkeypatch.setenv(device.DEVICE_VARIABLE, "CPU")

    assert device.choose_device().device == "cpu"


@pytest.mark.parametrize(("value", "words"), [("gpu", "cpu, cuda, mps"), ("cuda", "cannot use")])
def test_an_unknown_or_absent_device_is_refused(machine, monkeypatch, value, words):
    machine()
    monkeypatch.setenv(device.DEVICE_VARIABLE, value)

    with pytest.raises(PipelineError, match=words):
        device.choose_device()


def test_float16_on_mps_is_refused_with_the_reason_however_it_is_asked_for(machine, monkeypatch):
    machine("mps")
    monkeypatch.setenv(device.DTYPE_VARIABLE, "float16")

    with pytest.raises(PipelineError, match="float16 on mps gives NaN losses and black images"):
        device.choose_device()
    with pytest.raises(PipelineError, match="black images"):
        device.DevicePolicy("mps", "float16", "")


def test_the_dtype_can_be_asked_for(machine, monkeypatch):
    machine("cuda")
    monkeypatch.setenv(device.DTYPE_VARIABLE, "Float32")

    policy = device.choose_device()

    assert (policy.device, policy.dtype_name) == ("cuda", "float32")
    assert "LOUPE_DTYPE asks for it" in policy.reason


@pytest.mark.parametrize(("value", "words"), [("fp16", "float32, bfloat16, float16"), ("bfloat16", "card lacks")])
def test_an_unknown_or_absent_dtype_is_refused(machine, monkeypatch, value, words):
    machine("cuda", bf16=False)
    monkeypatch.setenv(device.DTYPE_VARIABLE, value)

    with pytest.raises(PipelineError, match=words):
        device.choose_device()


def test_only_a_float32_policy_leaves_autocast_off():
    with device.DevicePolicy("cpu", "float32", "").autocast():
        assert not torch.is_autocast_enabled("cpu")
    with device.DevicePolicy("cpu", "bfloat16", "").autocast():
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") is torch.bfloat16


def test_the_identity_tells_thread_counts_apart(machine):
    machine()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = device.device_identity(device.choose_device())
        torch.set_num_threads(3)
        three = device.device_identity(device.choose_device())
    finally:
        torch.set_num_threads(before)

    assert one != three
