"""Two gloo processes on the CPU: what they promise each other, and the stages started as a user would."""

import csv
import json
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file

from loupe.atomic_io import read_record, sha256_file
from loupe.diffusion.adapter import adapter_state
from loupe.diffusion.model_loading import load_unet
from loupe.diffusion.processes import ALONE, AskedProcesses, Processes, asked_processes, joined_processes
from loupe.diffusion.train_run import Leg, run_legs
from loupe.diffusion.train_settings import learning_rate_at
from loupe.diffusion.train_store import TrainStore
from loupe.diffusion.validation import ROWS_AT_ONCE, validation_losses
from loupe.errors import PipelineError
from loupe.params import load_params
from loupe.paths import ProjectPaths
from loupe.records import CheckpointsManifest
from loupe.workstore import WorkStore
from stages.encode import encode
from stages.generate import generate
from stages.train import train
from tests.unit.diffusion.process_driver import N_STEPS, SHARED, validation_set
from tests.unit.diffusion.tiny_project import run_stage_of, stage_environment, write_tiny_project
from tests.unit.diffusion.tiny_training import CPU, tiny_trainer

TOLERANCE = 1e-5
"""Of a weight, beside weights of about 0.1 that a step moves by 1e-3: only the order of a sum's addends differs."""
TWO_ON_CPU = "--multi_gpu --num_machines 1 --num_processes 2 --main_process_port 0"


# --- one process -----------------------------------------------------------------------------------------------------


def test_alone_nothing_of_torch_distributed_is_touched(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    tensor = torch.ones(2)
    with joined_processes() as processes:
        processes.wait()
        processes.add_up(tensor)
        processes.from_main(tensor)
        processes.require_same("It", "same")
    assert processes == ALONE
    assert tensor.tolist() == [1, 1]
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_are_disjoint_and_together_everything(count):
    items = list(range(7))
    shares = [Processes(index, count).share(items) for index in range(count)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("device", "reason"), [("mps", "not on a Mac's GPU"), ("cuda", "2 processes.*shows 1 GPUs")])
def test_processes_without_a_device_each_are_refused(monkeypatch, device, reason):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("loupe.diffusion.processes.choose_device_kind", lambda: device)
    with pytest.raises(PipelineError, match=reason), joined_processes():
        pass


def test_a_process_that_does_not_see_the_stored_state_says_so(tiny_base_model, tmp_path):
    states = TrainStore(WorkStore(tmp_path), {"run": 1})
    with pytest.raises(PipelineError, match=r"state of step 2 is not in the work store.*disk that the machines share"):
        next(run_legs([Leg(2, 4)], tiny_trainer(tiny_base_model), states, interim_interval_s=1.0))


# --- two processes that talk -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reports(tiny_base_model, tmp_path_factory):
    """What each of two processes of process_driver.py has seen; beside it, the adapters it has trained."""
    output = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.unit.diffusion.process_driver", str(tiny_base_model), str(output)],
            env=stage_environment(**group, RANK=str(index), LOCAL_RANK=str(index)),
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    errors = [process.communicate(timeout=400)[1] for process in running]
    assert [process.returncode for process in running] == [0, -9], errors
    return [
        json.loads((output / f"{i}.json").read_text())
        | {"adapter": load_file(output / f"{i}.safetensors"), "both": load_file(output / f"{i}-both.safetensors")}
        | load_file(output / f"{i}-losses.safetensors")
        for i in range(2)
    ]


def test_each_process_knows_its_place_and_what_the_others_have(reports):
    assert [(r["index"], r["count"], r["share"]) for r in reports] == [(0, 2, [0, 2, 4]), (1, 2, [1, 3])]
    assert [(r["sum"], r["from_main"], r["least"]) for r in reports] == [(3.0, 10, 6), (3.0, 10, 6)]


def test_processes_that_would_compute_something_else_stop_together(reports):
    for report in reports:
        assert "The thing differs between process 0 and 1." in report["differing"]


def test_a_step_is_divided_and_no_example_is_seen_by_both(reports):
    """Forward passes of 2 examples, 2 per process: the trap is that both processes see the same data."""
    of_first, of_second = (report["first_positions"] for report in reports)
    assert of_first[:2] == [0, 4]
    assert of_second[:2] == [2, 6]
    assert sorted(of_first + of_second) == list(range(0, 8 * N_STEPS, 2))


def test_both_processes_hold_the_same_adapter_to_the_bit(reports):
    first, second = (report["adapter"] for report in reports)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert reports[0]["rows"] == reports[1]["rows"]


def test_two_processes_train_what_one_does_with_the_same_effective_batch(reports, tiny_base_model):
    alone = tiny_trainer(tiny_base_model, **SHARED, gradient_accumulation_steps=4)
    rows = list(alone.run(N_STEPS))
    of_two = reports[0]
    for row, other in zip(rows, of_two["rows"], strict=True):
        assert other["loss"] == pytest.approx(row.loss, rel=1e-5)
        assert other["grad_norm"] == pytest.approx(row.grad_norm, rel=1e-4)
    weights = adapter_state(alone.unet)
    torch.testing.assert_close(of_two["adapter"], weights, atol=TOLERANCE, rtol=0)
    assert max(float(weight.abs().max()) for weight in weights.values()) > 100 * TOLERANCE


def test_two_processes_train_the_text_encoder_as_one_does(reports, tiny_base_model):
    knobs = {"gradient_accumulation_steps": 4, "train_text_encoder": True}
    alone = tiny_trainer(tiny_base_model, **SHARED, **knobs)
    list(alone.run(N_STEPS))
    first, second = (report["both"] for report in reports)
    assert first.keys() == alone.parameters.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    torch.testing.assert_close(first, alone.models.state(), atol=TOLERANCE, rtol=0)
    learnt = [float(first[key].abs().max()) for key in first if key.startswith("text_encoder.") and "lora_B" in key]
    assert min(learnt) > 100 * TOLERANCE


def test_validation_is_shared_out_and_every_loss_is_that_of_one_process(reports, tiny_base_model):
    unet = load_unet(tiny_base_model, device="cpu", dtype=torch.float32)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the two
    try:
        alone = validation_losses(unet, validation_set(), policy=CPU, what="validation")
    finally:
        torch.set_num_threads(n_threads)
    assert alone.shape == (7, 8)
    assert alone.unique().numel() == 56
    for report in reports:
        assert report["n_validated"] == 2 * ROWS_AT_ONCE
        assert torch.equal(report["losses"], alone)


def test_the_learning_rate_goes_by_optimizer_steps_not_by_processes(reports, tiny_base_model):
    settings = tiny_trainer(tiny_base_model, **SHARED).settings
    expected = [learning_rate_at(step, settings) for step in range(1, N_STEPS + 1)]
    assert expected[0] < expected[1] < expected[2] == expected[3]
    for report in reports:
        assert [row["learning_rate"] for row in report["rows"]] == expected


def test_a_loss_that_is_not_finite_in_one_process_stops_both_with_one_message(reports):
    first, second = (report["not_finite"] for report in reports)
    assert first == second
    assert "Training stopped at step 1: loss nan" in first
    assert "image0" in first


def test_an_overflow_in_one_process_makes_both_repeat_the_step_at_half_the_scale(reports):
    assert [report["scale"] for report in reports] == [128.0, 128.0]
    assert reports[0]["loss"] == reports[1]["loss"]


def test_a_process_that_dies_is_noticed_at_once_and_named_as_the_cause(reports):
    assert "Process 0 of 2 has lost another one" in reports[0]["alone"]
    assert "start all of them again" in reports[0]["alone"]
    assert reports[0]["noticed_after_s"] < 20


# --- the stages, started as a user does ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def projects(tiny_base_model, tmp_path_factory):
    """Folders 'one' and 'two': the same work by one process and by two; training has the same effective batch."""
    root = tmp_path_factory.mktemp("projects")
    one = write_tiny_project(root / "one", base=tiny_base_model)
    _set(one, "train", max_steps=4, batch_size=2, gradient_accumulation_steps=2, preview_prompts=0)
    prompts = {"red": "a photo of red shoes"}
    _set(one, "generate", prompts=prompts, val_captions=2, seeds_per_prompt=4, num_inference_steps=2)
    _run_alone(one, encode)
    two = shutil.copytree(one, root / "two")
    _set(two, "train", gradient_accumulation_steps=1)
    _run_alone(one, train)
    done = run_stage_of(two, "train", LOUPE_LAUNCH=TWO_ON_CPU)
    assert done.returncode == 0, done.stderr
    return {"one": one, "two": two, "said": done.stdout}


def _run_alone(root, stage):
    """Run a stage here, as its script would: the libraries are loaded already."""
    n_threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("LOUPE_DEVICE", "cpu")
        for name in ("DVC_ROOT", "WORLD_SIZE"):
            patch.delenv(name, raising=False)
        torch.set_num_threads(1)
        try:
            stage(load_params(root / "params.yaml"), ProjectPaths(root), WorkStore(ProjectPaths(root).work))
        finally:
            torch.set_num_threads(n_threads)


def _set(root, section, **values):
    yaml = YAML()
    params = yaml.load((root / "params.yaml").read_text())
    params[section].update(values)
    yaml.dump(params, root / "params.yaml")


def test_two_processes_of_the_train_stage_give_the_adapter_of_one(projects):
    manifests = {
        name: read_record(projects[name] / "data/checkpoints/manifest.json", CheckpointsManifest, made_by="train")
        for name in ("one", "two")
    }
    assert [m.effective_batch_size for m in manifests.values()] == [4, 4]
    assert [info.step for info in manifests["two"].checkpoints] == [2, 4]
    for info in manifests["two"].checkpoints:
        file = f"data/checkpoints/{info.folder}/adapter_model.safetensors"
        assert sha256_file(projects["two"] / file) == info.sha256
        weights = load_file(projects["one"] / file)
        torch.testing.assert_close(load_file(projects["two"] / file), weights, atol=TOLERANCE, rtol=0)
    assert "effective batch size 4 = batch_size 2 x gradient_accumulation_steps 1 x 2 processes" in projects["said"]


def test_the_main_process_alone_reports_and_writes_each_step_once(projects):
    assert projects["said"].count("train: computed=4 reused=0") == 1
    tables = []
    for name in ("one", "two"):
        with (projects[name] / "metrics" / "train.csv").open() as file:
            tables.append(list(csv.DictReader(file)))
    assert [row["step"] for row in tables[1]] == ["1", "2", "3", "4"]
    assert [row["learning_rate"] for row in tables[1]] == [row["learning_rate"] for row in tables[0]]


def test_two_processes_go_on_from_a_stored_state_to_the_bytes_of_an_undisturbed_run(projects, tmp_path):
    """As after a kill between the two checkpoints: the last state and what had been measured of it are not there."""
    root = shutil.copytree(projects["two"], tmp_path / "again")
    for gone in [*(root / ".work" / "train").rglob("*-000004.safetensors"), root / "data/checkpoints/manifest.json"]:
        gone.unlink()
    shutil.rmtree(root / ".work" / "validation")
    shutil.rmtree(root / "data" / "checkpoints" / "step-000004")

    done = run_stage_of(root, "train", LOUPE_LAUNCH=TWO_ON_CPU)

    assert done.returncode == 0, done.stderr
    assert "train: resumed from step 2" in done.stdout
    assert done.stdout.count("train: computed=2 reused=2") == 1
    assert done.stdout.count("validation at step 4: loss") == 1
    hashes = [
        {
            path.relative_to(of): sha256_file(path)
            for path in (*of.glob("data/checkpoints/**/*.*"), *of.glob("metrics/*"))
        }
        for of in (root, projects["two"])
    ]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) > 8


def test_two_processes_of_the_generate_stage_write_the_files_of_one(projects, tmp_path):
    alone = shutil.copytree(projects["one"], tmp_path / "alone")
    together = shutil.copytree(projects["one"], tmp_path / "together")
    _run_alone(alone, generate)
    done = run_stage_of(together, "generate", LOUPE_LAUNCH=TWO_ON_CPU)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("generate: computed=") == 1
    hashes = [
        {
            path.relative_to(root / "data" / "samples"): sha256_file(path)
            for path in (root / "data" / "samples").rglob("*.*")
        }
        for root in (alone, together)
    ]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) > 20


# --- what loupe check reads of it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "count", "here"),
    [
        ("", 1, 1),
        ("--num_processes 4", 4, 4),
        ("--multi_gpu --num_machines 2 --num_processes=8 --machine_rank 1", 8, 4),
        ("--config_file cluster.yaml", 1, 1),
    ],
)
def test_the_processes_asked_for_are_read_as_the_launcher_reads_them(monkeypatch, options, count, here):
    monkeypatch.setenv("LOUPE_LAUNCH", options)
    assert asked_processes() == AskedProcesses(count, here)


@pytest.mark.parametrize("options", ["--num_processes four", "--num_processes 'four"])
def test_options_that_the_launcher_does_not_understand_are_refused(monkeypatch, options):
    monkeypatch.setenv("LOUPE_LAUNCH", options)
    with pytest.raises(PipelineError, match="LOUPE_LAUNCH is"):
        asked_processes()
