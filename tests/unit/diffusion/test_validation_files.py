"""A stored validation loss is found again only when nothing that decides it has changed."""

from dataclasses import replace

import pytest
import torch

from loupe.diffusion import validation_files
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.validation import make_validation_set
from loupe.diffusion.validation_files import Validation
from loupe.workstore import WorkStore
from tests.unit.diffusion.tiny_checkpoints import write_checkpoints
from tests.unit.diffusion.tiny_training import CPU, tiny_examples


@pytest.fixture(scope="module")
def source(tiny_base_model, tmp_path_factory):
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"), tiny_base_model, (2,), with_text=True)


def places(tmp_path, source, *, n_examples=6, n_timesteps=2, seed=0, policy=CPU):
    """Where the losses of the base model and of step 2 are kept."""
    data = make_validation_set(
        tiny_examples(n_examples), alphas_cumprod=torch.linspace(0.99, 0.01, 1000), n_timesteps=n_timesteps,
        prediction_type="epsilon", scaling_factor=0.18215, seed=seed,
    )  # fmt: skip
    kept = Validation(data, seed=seed, policy=policy, store=WorkStore(tmp_path), metrics=tmp_path)
    (info,) = source.checkpoints.checkpoints
    return kept._entry(source, None), kept._entry(source, info)


def test_whatever_decides_a_loss_changes_its_place(tmp_path, source):
    changes = [{"n_examples": 5}, {"n_timesteps": 3}, {"seed": 1}, {"policy": DevicePolicy("cpu", "bfloat16", "test")}]
    found = [places(tmp_path, source), *(places(tmp_path, source, **change) for change in changes)]
    other_base = replace(source, base_model=source.base_model.model_copy(update={"sha256": "1" * 64}))
    found.append(places(tmp_path, other_base))
    assert len({place for both in found for place in both}) == 2 * len(found)


@pytest.mark.parametrize("name", ["device_identity", "library_versions", "source_fingerprint"])
def test_another_machine_other_libraries_and_other_code_change_the_place(tmp_path, source, monkeypatch, name):
    before = places(tmp_path, source)
    monkeypatch.setattr(validation_files, name, lambda *_: "another")
    assert not set(before) & set(places(tmp_path, source))


@pytest.mark.parametrize("name", ["sha256", "text_encoder_sha256"])
def test_another_adapter_changes_the_place_of_its_own_loss_only(tmp_path, source, name):
    (info,) = source.checkpoints.checkpoints
    changed = source.checkpoints.model_copy(update={"checkpoints": (info.model_copy(update={name: "1" * 64}),)})
    (base, before), (same_base, after) = (
        places(tmp_path, one) for one in (source, replace(source, checkpoints=changed))
    )
    assert same_base == base
    assert after != before
