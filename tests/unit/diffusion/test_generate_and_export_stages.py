"""Stages generate and export and the command line, each as a person starts it, on one tiny project."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML

from loupe import cli
from loupe.atomic_io import read_record, write_record
from loupe.evaluation_records import Selection
from loupe.paths import ProjectPaths
from loupe.records import ExportManifest, SamplesManifest
from loupe.reproduce import reproduce_command
from tests.tiny_models import TINY_SIDE_PX
from tests.unit.diffusion.tiny_checkpoints import write_checkpoints
from tests.unit.diffusion.tiny_project import run_stage_of, write_tiny_project

REPOSITORY = Path(__file__).resolve().parents[3]
GENERATE = {
    "prompts": {"red_shoes": "a photo of red shoes"}, "val_captions": 2, "seeds_per_prompt": 1,
    "num_inference_steps": 2, "batch_size": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tiny_base_model, tmp_path_factory):
    """A project with checkpoints 2 and 4 that has been through generate, which must not see the test split."""
    root = write_tiny_project(tmp_path_factory.mktemp("project"), base=tiny_base_model)
    yaml = YAML()
    params = yaml.load((root / "params.yaml").read_text())
    params["generate"].update(GENERATE)
    yaml.dump(params, root / "params.yaml")
    source = write_checkpoints(root / "data" / "checkpoints", tiny_base_model, (2, 4))
    manifest = source.checkpoints.model_copy(
        update={"base_model": source.base_model.model_copy(update={"name": str(tiny_base_model)})}
    )
    write_record(root / "data" / "checkpoints" / "manifest.json", manifest)
    shutil.rmtree(root / "data" / "dataset" / "test")
    done = run_stage_of(root, "generate")
    assert done.returncode == 0, done.stderr
    assert "generate: computed=9 reused=0" in done.stdout
    return root


@pytest.fixture
def _in_project(project, monkeypatch):
    monkeypatch.setenv("LOUPE_DEVICE", "cpu")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(project)


def test_generate_draws_fixed_prompts_and_val_captions_for_base_and_checkpoints(project):
    samples = ProjectPaths(project).samples
    manifest = read_record(samples / "manifest.json", SamplesManifest, made_by="generate")
    assert manifest.steps == (0, 2, 4)
    assert [p.prompt_id for p in manifest.prompts] == ["red_shoes", "val_val1", "val_val0"]
    assert [p.colour for p in manifest.prompts][1:] == ["blue", "red"]
    assert (manifest.width_px, manifest.num_inference_steps) == (TINY_SIDE_PX, 2)
    assert all((samples / sample.file).is_file() for sample in manifest.samples)


def test_generate_again_draws_nothing(project):
    before = (ProjectPaths(project).samples / "manifest.json").read_bytes()
    done = run_stage_of(project, "generate")
    assert "generate: computed=0 reused=9" in done.stdout, done.stderr
    assert (ProjectPaths(project).samples / "manifest.json").read_bytes() == before


def test_generate_without_checkpoints_says_which_stage_makes_them(project, tmp_path):
    root = tmp_path / "untrained"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns("checkpoints", "samples", ".work"))
    done = run_stage_of(root, "generate")
    assert done.returncode == 2
    assert "dvc repro train" in done.stderr
    assert "Traceback" not in done.stderr


def test_export_writes_the_selected_checkpoint_and_also_without_a_clear_winner(project):
    paths = ProjectPaths(project)
    reason = "Steps 2 and 4 cannot be told apart; step 4 is exported."
    selection = Selection(verdict="no clear winner", step=4, reason=reason, gates_failed={}, tied_steps=(2, 4))
    write_record(paths.metrics / "selection.json", selection)
    done = run_stage_of(project, "export")
    assert done.returncode == 0, done.stderr
    assert "no clear winner, step 4" in done.stdout
    assert read_record(paths.export / "manifest.json", ExportManifest, made_by="export").step == 4
    assert reason in (paths.export / "README.md").read_text()


@pytest.mark.usefixtures("_in_project")
def test_the_command_line_draws_any_prompt_with_chosen_checkpoints(project, tmp_path, capsys):
    output = tmp_path / "pictures"
    cli.main(["generate", "black shoes", "--step", "0", "--step", "4", "--count", "2", "--output", str(output)])
    assert sorted(p.relative_to(output).as_posix() for p in output.rglob("*.png")) == [
        "prompt-0/0.png", "prompt-0/4.png", "prompt-1/0.png", "prompt-1/4.png",
    ]  # fmt: skip
    assert capsys.readouterr().out.count("step 4, seed") == 2
    with Image.open(output / "prompt-0" / "0.png") as base, Image.open(output / "prompt-0" / "4.png") as adapted:
        assert base.tobytes() != adapted.tobytes()


@pytest.mark.usefixtures("_in_project")
def test_the_command_that_the_review_names_draws_a_picture_of_the_run_again(project, tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "empty work store"))
    before, after = reproduce_command(prompt_id="red_shoes", text="a photo of red shoes", seed_index=0)
    words = shlex.split(f"{before}4{after}")
    assert words[:3] == ["python", "-m", "loupe.cli"]
    cli.main([*words[3:-1], str(tmp_path / words[-1])])
    again = tmp_path / "reproduced" / "red_shoes-0" / "4.png"
    assert again.read_bytes() == (ProjectPaths(project).samples / "red_shoes-0" / "4.png").read_bytes()


@pytest.mark.usefixtures("_in_project")
def test_the_command_line_exports_any_checkpoint(tmp_path):
    cli.main(["export", "--step", "2", "--output", str(tmp_path / "taken")])
    assert json.loads((tmp_path / "taken" / "manifest.json").read_text())["step"] == 2
    assert (tmp_path / "taken" / "casual-shoes.safetensors").is_file()


@pytest.mark.usefixtures("_in_project")
def test_the_command_line_leaves_a_folder_that_holds_something_alone(tmp_path, capsys):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(SystemExit) as end:
        cli.main(["export", "--step", "2", "--output", str(tmp_path)])
    assert end.value.code == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


@pytest.mark.usefixtures("_in_project")
def test_check_names_every_problem_at_once(project, tmp_path, capsys):
    yaml = YAML()
    params = yaml.load((project / "params.yaml").read_text())
    params["data"]["root"] = "nowhere"
    params["generate"]["prompts"]["long"] = "red " * 90
    yaml.dump(params, tmp_path / "params.yaml")
    with pytest.raises(SystemExit) as end:
        cli.main(["--params", str(tmp_path / "params.yaml"), "check"])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert "data.root: there is no folder" in message
    assert "generate.prompts.long: 92 tokens" in message


@pytest.mark.usefixtures("_in_project")
def test_check_names_every_missing_part_at_once(project, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["check"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "data.root" in said
    assert "evaluate.extractors names demo, but" in said
    assert "evaluate.extractors names demo-clip, but" in said


@pytest.mark.usefixtures("_in_project")
def test_check_sums_up_what_a_run_will_do(project, capsys):
    (project / "loupe" / "demo" / "catalogue").mkdir(parents=True, exist_ok=True)
    for scorer in ("classifier", "clip"):
        shutil.copytree(REPOSITORY / "data" / "demo" / scorer, project / "data" / "demo" / scorer)
    cli.main(["check", "--fast"])
    assert "3 for the base model and for each checkpoint, 12 in all" in capsys.readouterr().out
