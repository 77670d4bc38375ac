import json
import shutil
import signal
import subprocess
import sys

import pytest

from tests.unit.diffusion.kill_driver import RARELY
from tests.unit.diffusion.tiny_project import stage_environment, write_encoded_project

CHECKPOINTS = (3, 6, 7)
KILLS = [
    ["step 1"],
    ["step 4", "step 2"],
    ["write 1"],
    [RARELY, "step 6"],
    [RARELY, "step 12"],
    [RARELY, "step 13", "step 2"],
    *[[f"write {number}", f"write {number // 3 + 1}"] for number in (4, 11, 18, 33)],
]


@pytest.fixture(scope="module")
def report(tmp_path_factory, tiny_base_model):
    """Six examples in batches of four over seven steps: kills fall mid-epoch, mid-step and mid-write."""
    folder = tmp_path_factory.mktemp("kill")
    train = {"max_steps": 7, "checkpoint_every": 3, "gradient_accumulation_steps": 2, "batch_size": 2}
    root = write_encoded_project(folder / "undisturbed", base=tiny_base_model, train=train)
    for number in range(len(KILLS)):
        shutil.copytree(root, folder / "disturbed" / str(number))
    driver = [sys.executable, "-m", "tests.unit.diffusion.kill_driver"]
    arguments = [str(root), str(folder / "disturbed"), json.dumps(KILLS)]
    done = subprocess.run([*driver, *arguments], env=stage_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("REPORT "))[7:])


@pytest.mark.parametrize("moments", KILLS, ids=" then ".join)
def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(report, moments):
    outcome = report[" then ".join(moments)]
    n_kills = len(moments) - (RARELY in moments)

    assert outcome["signals"] == [-signal.SIGKILL] * n_kills + [0]
    assert outcome["files"] == report["undisturbed"]["files"]


@pytest.mark.parametrize("moments", KILLS, ids=" then ".join)
def test_a_kill_costs_less_than_the_steps_between_two_checkpoints_and_never_a_checkpoint(report, moments):
    outcome = report[" then ".join(moments)]
    kept, computed = outcome["counts"]["reused"], outcome["counts"]["computed"]
    done = max(outcome["reached"][:-1])

    assert kept + computed == 7
    assert kept >= max((step for step in CHECKPOINTS if step <= done), default=0)
    assert done - kept < 3
    if RARELY not in moments:
        assert kept >= done


def test_without_interim_states_a_kill_costs_what_came_after_the_checkpoint(report):
    outcome = report[f"{RARELY} then step 12"]

    assert outcome["reached"][0] == 5  # the twelfth forward pass is the second of step 6
    assert outcome["counts"] | {"time": ""} == {"stage": "train", "time": "", "computed": 4, "reused": 3}


def test_the_comparison_covers_every_checkpoint_and_the_csv(report):
    files = set(report["undisturbed"]["files"])

    adapters = {f"data/checkpoints/step-{step:06d}/adapter_model.safetensors" for step in CHECKPOINTS}
    assert adapters | {"metrics/train.csv", "data/checkpoints/manifest.json"} <= files
    assert {"metrics/validation.csv", "metrics/validation_timesteps.csv"} <= files
    assert "data/checkpoints/validation.safetensors" in files
