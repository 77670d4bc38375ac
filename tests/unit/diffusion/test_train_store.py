"""What storing states costs; and what somebody does to them by hand costs at most their steps, and no traceback.

Also what the stage puts into the key of a compiled run.
"""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from loupe.diffusion import train_memory, train_run
from loupe.diffusion.tensor_files import hashed_bytes, read_hashed, tensor_bytes
from loupe.diffusion.train_run import Leg, run_legs
from loupe.diffusion.train_store import TrainStore
from loupe.diffusion.training import TrainingState
from loupe.params import load_params
from loupe.paths import ProjectPaths
from loupe.records import TrainRow
from loupe.workstore import WorkStore
from stages.train import train
from tests.unit.diffusion.tiny_project import write_encoded_project, write_params
from tests.unit.diffusion.tiny_training import tiny_trainer


def state_of(step):
    rows = [TrainRow(step=n, loss=0.5, loss_smoothed=0.5, learning_rate=0.1, grad_norm=1.0) for n in range(1, step + 1)]
    weights = {"layer": torch.full((3,), float(step))}
    return TrainingState(weights, {}, {"layer/exp_avg": torch.ones(3)}, {"scale": 2.0}, tuple(rows))


@pytest.fixture
def store(tmp_path):
    states = TrainStore(WorkStore(tmp_path), {"run": 1})
    for step in (1, 2):
        states.save(state_of(step))
    return states


def file_of(store, step):
    return store.store.path("train", store.key, f"-{step:06d}.safetensors")


def as_folder(path):
    path.unlink()
    path.mkdir()
    (path / "inside").write_bytes(b"x")


def as_broken_link(path):
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def as_link_to_a_folder(path):
    path.unlink()
    path.symlink_to(path.parent)


def without_rows(path):
    path.write_bytes(hashed_bytes({"adapter/layer": torch.zeros(3)}, metadata={"scaler": "{}"}))


def with_another_tensor(path):
    path.write_bytes(hashed_bytes({"unknown": torch.zeros(3)}))


def with_another_scaler(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content.replace(b"2.0", b"3.0"))


def as_another_step(path):
    path.unlink()
    shutil.copy(path.with_name(path.name.replace("000002", "000001")), path)


DAMAGES = [
    as_folder, as_broken_link, as_link_to_a_folder, without_rows, with_another_tensor, with_another_scaler,
    as_another_step,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_state_damaged_by_hand_is_said_removed_and_stored_anew(store, capsys, damage):
    damage(file_of(store, 2))

    assert store.usable_steps() == [1]
    assert "the stored state of step 2 is damaged (" in capsys.readouterr().out
    assert store.usable_steps() == [1]
    assert not capsys.readouterr().out

    store.save(state_of(2))
    assert store.usable_steps() == [1, 2]
    assert store.load(2).rows == state_of(2).rows


@pytest.mark.parametrize("name", ["{}-backup", "{} (copy)", "{}.old", "{}.interim.old", "{}-000009", "{}9x"])
def test_a_copy_beside_a_state_is_no_state_and_stays(store, capsys, name):
    path = file_of(store, 2)
    copy = path.with_name(name.format(path.stem) + path.suffix)
    shutil.copy(path, copy)

    assert store.usable_steps() == [1, 2]
    store.save(state_of(3), interim=True)
    store.keep([2, 3])
    assert store.usable_steps() == [1, 2, 3]
    assert copy.exists()
    assert not capsys.readouterr().out


def test_a_state_under_the_name_of_another_step_is_not_loaded(store):
    shutil.copy(file_of(store, 1), file_of(store, 9))

    with pytest.raises(ValueError, match="it is that of step 1"):
        store.load(9)


def test_a_state_of_another_run_is_computed_anew(store, capsys):
    other = TrainStore(store.store, {**store.parts, "learning_rate": 0.5})
    other.save(store.load(1))
    shutil.copy(file_of(other, 1), file_of(store, 1))

    assert 1 not in store.usable_steps()
    assert "the stored state of step 1 is damaged (it is that of another entry)" in capsys.readouterr().out
    assert other.usable_steps() == [1]


def test_a_step_of_more_digits_than_the_names_have_is_found(store):
    assert file_of(store, 1_234_567).name.endswith("-1234567.safetensors")
    file_of(store, 1_234_567).write_bytes(file_of(store, 2).read_bytes())

    with pytest.raises(ValueError, match="it is that of step 2"):
        store.load(1_234_567)


def test_the_hash_without_metadata_is_the_one_that_stored_files_have(tmp_path):
    tensors = {"b": torch.ones(2, 3), "a": torch.arange(4)}
    (tmp_path / "file").write_bytes(hashed_bytes(tensors))

    read, metadata = read_hashed(tmp_path / "file")

    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert metadata == {}


def test_the_bytes_of_a_file_are_a_header_with_sorted_keys_and_the_data():
    content = tensor_bytes({"b": torch.ones(2), "a": torch.zeros(1)}, metadata={"z": "1", "y": "2"})

    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert list(header) == ["__metadata__", "a", "b"]
    assert list(header["__metadata__"]) == ["y", "z"]
    assert torch.frombuffer(bytearray(content[8 + length :]), dtype=torch.float32).tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(("save_s", "interim_steps"), [(0.0, [3, 5, 7]), (0.12, [3, 6]), (0.25, [3])])
def test_interim_states_take_at_most_two_percent_of_the_time(
    store, tiny_base_model, monkeypatch, save_s, interim_steps
):
    """A step takes 2.5 s here; a state is due every 3 s, but not before 50 times as long as the last one took."""
    now, saved, trainer = [0.0], [], tiny_trainer(tiny_base_model)

    def save(_, state, *, interim):
        now[0] += save_s
        saved.append((state.step, interim))

    monkeypatch.setattr(TrainStore, "save", save)
    for _ in run_legs([Leg(0, 8)], trainer, store, interim_interval_s=3.0, clock=lambda: now[0]):
        now[0] += 2.5

    assert [step for step, interim in saved if interim] == interim_steps
    assert saved[-1] == (8, False)


@pytest.mark.parametrize("recomputes", [False, True])
def test_the_stage_puts_the_choice_that_memory_made_into_the_key_of_a_compiled_run(
    tiny_base_model, tmp_path, monkeypatch, recomputes
):
    """With `auto` it is free memory that decides, so nothing in params.yaml tells the two apart."""
    root = write_encoded_project(tmp_path / "project", base=tiny_base_model)
    write_params(root, base=tiny_base_model, train={"compile": True})
    plan, key_parts, seen = train_memory.plan_memory, train_run.run_parts, []

    def seen_only(*arguments, **named):
        seen.append(key_parts(*arguments, **named)["train"]["gradient_checkpointing"])
        raise KeyboardInterrupt  # the rest of the stage is not needed

    monkeypatch.setenv("LOUPE_DEVICE", "cpu")
    monkeypatch.setattr(
        train_memory, "plan_memory", lambda *a, **o: replace(plan(*a, **o), gradient_checkpointing=recomputes)
    )
    monkeypatch.setattr(train_run, "run_parts", seen_only)
    project = ProjectPaths(root)
    with pytest.raises(KeyboardInterrupt):
        train(load_params(root / "params.yaml"), project, WorkStore(project.work))

    assert seen == [recomputes]
