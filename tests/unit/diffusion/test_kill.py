import json
import shutil
import signal
import subprocess
import sys

import pytest

from tests.unit.diffusion.tiny_project import stage_environment, write_encoded_project

KILLS = [
    ["step 1"],
    ["step 4", "step 2"],
    ["write 1"],
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

    assert outcome["signals"] == [-signal.SIGKILL] * len(moments) + [0]
    assert outcome["files"] == report["undisturbed"]["files"]


def test_the_comparison_covers_every_checkpoint_and_the_csv(report):
    files = set(report["undisturbed"]["files"])

    adapters = {f"data/checkpoints/step-{step:06d}/adapter_model.safetensors" for step in (3, 6, 7)}
    assert adapters | {"metrics/train.csv", "data/checkpoints/manifest.json"} <= files
    assert {"metrics/validation.csv", "metrics/validation_timesteps.csv"} <= files
    assert "data/checkpoints/validation.safetensors" in files
