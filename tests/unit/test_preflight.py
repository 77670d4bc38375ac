"""`loupe check` tries a real step and a real picture, says what a run would take, and writes nothing."""

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from loupe import cli
from loupe.atomic_io import read_record, write_record
from loupe.diffusion import memory, train_memory, trial_run
from loupe.diffusion.adapter import AdapterConfig
from loupe.diffusion.cost_model import drawing_cost, unet_cost
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.trial_run import DrawingTrial
from loupe.errors import PipelineError
from loupe.evaluation_records import EvaluationManifest, ReferenceManifest
from loupe.metrics.extractor_keys import Machine
from loupe.metrics.extractors import resolve_extractors
from loupe.params import load_params
from loupe.paths import ProjectPaths
from loupe.records import CheckpointsManifest
from loupe.workstore import WorkStore
from tests.run_parts import write_lock
from tests.run_shape import BASE
from tests.tiny_models import build_tiny_base_model
from tests.unit.diffusion.tiny_project import REPOSITORY, write_tiny_project


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_tiny_base_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def project(tmp_path, base, monkeypatch):
    """A prepared project, not encoded, with the demo's scorers."""
    root = write_tiny_project(tmp_path / "project", base=base)
    (root / "data" / "demo").symlink_to(REPOSITORY / "data" / "demo")
    change(root, "data", root=str(REPOSITORY / "loupe" / "demo" / "catalogue"))
    change(root, "generate", num_inference_steps=5)
    monkeypatch.chdir(root)
    monkeypatch.setenv("LOUPE_DEVICE", "cpu")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return root


def change(project: Path, section: str, **values) -> None:
    yaml = YAML()
    params = yaml.load((project / "params.yaml").read_text())
    params[section].update(values)
    with (project / "params.yaml").open("w") as file:
        yaml.dump(params, file)


def files_of(root: Path) -> dict[str, int]:
    return {
        str(p): p.stat().st_mtime_ns for folder, _, names in os.walk(root) for p in (Path(folder) / n for n in names)
    }


def lines_of(text: str) -> dict[str, str]:
    """The report by label; of a label that comes twice, both."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        label, value = line[:12].strip(), line[13:]
        found[label] = f"{found[label]}\n{value}" if label in found else value
    return found


def refusal(capsys, *arguments: str) -> tuple[str, str]:
    """Run a command that must end with exit code 2; return what it printed to stdout and to stderr."""
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    return capsys.readouterr()


def test_before_encoding_it_trains_on_made_up_latents_and_says_go(project, capsys):
    before = files_of(project)
    cli.main(["check"])
    report = lines_of(capsys.readouterr().out)
    assert "made up" in report["examples"]
    assert "manifest.json" in report["examples"]
    assert report["device"].startswith("cpu: LOUPE_DEVICE asks for it")
    assert "torch 2" in report["versions"]
    assert report["training"].startswith("3 steps")
    assert "finite, not black" in report["drawing"]
    assert "training about" in report["memory"]
    assert "drawing about" in report["memory"]
    assert "6 steps" in report["whole run"]
    assert "encoding of 8 photos" in report["whole run"]
    assert report["encoding"].startswith("a photo in ")
    assert "validation of 3 checkpoints" in report["whole run"]
    assert report["whole run"].endswith("; without scoring")
    assert report["go"] == "dvc repro"
    assert files_of(project) == before


def test_before_preparing_it_says_what_the_estimate_is_without(project, capsys):
    shutil.rmtree(project / "data" / "dataset")
    cli.main(["check"])
    report = lines_of(capsys.readouterr().out)
    assert report["whole run"].endswith("; without preparing, encoding, validation, scoring")
    assert "encoding" not in report


def test_after_encoding_it_trains_on_the_encoded_photos_and_counts_validation(project, capsys):
    from stages.encode import encode

    encode(load_params(project / "params.yaml"), ProjectPaths(project), WorkStore(project / ".work"))
    before = files_of(project)
    cli.main(["check"])
    report = lines_of(capsys.readouterr().out)
    assert report["examples"].startswith("6 encoded photos")
    assert "validation of 3 checkpoints" in report["whole run"]
    assert files_of(project) == before


def test_a_text_encoder_that_is_trained_is_tried_too_and_counted(project, capsys):
    from stages.encode import encode

    encode(load_params(project / "params.yaml"), ProjectPaths(project), WorkStore(project / ".work"))
    cli.main(["check"])
    without = lines_of(capsys.readouterr().out)
    change(project, "train", train_text_encoder=True)
    cli.main(["check"])
    report = lines_of(capsys.readouterr().out)
    assert report.keys() - without.keys() == {"adapters"}
    assert report["adapters"] == "of the UNet and of the text encoder, which is trained with it: rank 2, alpha 4 each"
    assert report["examples"].startswith("6 encoded photos")
    # The encoder has not learnt yet, so its vectors are those that were encoded, and the first loss is the same.
    assert report["training"].rpartition("loss ")[2] == without["training"].rpartition("loss ")[2]


def test_made_up_examples_have_tokens_too(project, capsys):
    change(project, "train", train_text_encoder=True)
    cli.main(["check"])
    report = lines_of(capsys.readouterr().out)
    assert report["examples"].startswith("made up")
    assert "loss" in report["training"]


def test_fast_says_that_a_base_model_is_still_to_be_downloaded_and_does_not(project, capsys, monkeypatch, tmp_path):
    import huggingface_hub

    revision = "0123456789" * 4
    change(project, "model", base="owner/model", revision=revision)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_args, **_options: None)
    monkeypatch.setattr("loupe.diffusion.base_model.download", lambda *_: pytest.fail("a download was begun"))
    cli.main(["check", "--fast"])
    said = lines_of(capsys.readouterr().out)["base model"]
    assert said == "owner/model, still to be downloaded from the Hub (about 4 GB), by the first stage that needs it"


def test_fast_tries_nothing(project, capsys, monkeypatch):
    monkeypatch.setattr("loupe.preflight_trial.check_by_trial", lambda *_, **__: pytest.fail("a trial was made"))
    cli.main(["check", "--fast"])
    report = lines_of(capsys.readouterr().out)
    assert {"base model", "data", "device", "scorers", "checkpoints", "pictures"} == report.keys()


def test_what_is_missing_is_named_all_at_once_before_any_trial(project, capsys):
    change(project, "data", root="nowhere")
    change(project, "model", base="no-such-folder")
    change(project, "evaluate", extractors=["demo", "ViT-B-32/absent.safetensors"])
    _, error = refusal(capsys, "check")
    assert "3 problems" in error
    assert "data.root" in error
    assert "no-such-folder" in error
    assert "absent.safetensors" in error


def test_knobs_that_the_machine_or_the_base_model_cannot_meet_are_named_together(project, capsys):
    change(project, "train", target_modules=["to_qq"], optimizer="adamw_8bit")
    _, error = refusal(capsys, "check")
    assert "2 problems" in error
    assert "to_qq" in error
    assert "adamw_8bit" in error


# --- weights outside the project -------------------------------------------------------------------------------------


@pytest.fixture
def with_results(project, base, tmp_path):
    """The project encoded from a base model of its own, and measured with an open_clip file of its own."""
    from stages.encode import encode

    own, weights = shutil.copytree(base, tmp_path / "own-base"), tmp_path / "mine.safetensors"
    weights.write_bytes(b"weights")
    change(project, "model", base=str(own))
    change(project, "evaluate", extractors=["demo", f"ViT-B-32-quickgelu/{weights}"])
    paths = ProjectPaths(project)
    encode(load_params(project / "params.yaml"), paths, WorkStore(project / ".work"))
    found = resolve_extractors(
        load_params(project / "params.yaml").evaluate.extractors, demo_folder=paths.demo, machine=Machine("cpu", "x")
    )
    reference = ReferenceManifest(extractors=found.infos, n_real={}, nulls={}, real_scores={}, files={})
    write_record(paths.reference / "manifest.json", reference)
    write_lock(project)
    return project, own, weights


def test_weights_that_are_those_of_the_results_are_no_problem(with_results, capsys):
    cli.main(["check", "--fast"])
    assert "scorers" in lines_of(capsys.readouterr().out)


def test_a_replaced_extractor_is_no_go_with_the_command_that_measures_anew(with_results, capsys):
    _, _, weights = with_results
    weights.write_bytes(b"Weights")
    _, error = refusal(capsys, "check", "--fast")
    assert f"ViT-B-32-quickgelu/{weights} is not what data/reference and the scores were measured with" in error
    assert "dvc repro --force --single-item reference && dvc repro" in error


def test_settings_or_libraries_other_than_those_of_the_photos_are_no_go(with_results, capsys):
    project, _, weights = with_results
    path = project / "data" / "reference" / "manifest.json"
    measured = read_record(path, ReferenceManifest, made_by="reference")
    write_record(path, measured.model_copy(update={"surroundings": {info.name: "0" for info in measured.extractors}}))
    _, error = refusal(capsys, "check", "--fast")
    assert f"the settings files of ViT-B-32-quickgelu/{weights}, or the versions of its libraries, are not" in error
    assert "demo," not in error, "DVC watches the demo's files"
    assert "dvc repro --force --single-item reference && dvc repro" in error


def test_an_extractor_that_is_absent_is_no_go_though_the_stages_could_do_without(project, capsys):
    change(project, "evaluate", extractors=["demo", "demo-clip", "inception:/no/such.pth"])
    _, error = refusal(capsys, "check", "--fast")
    assert "/no/such.pth is not there" in error


def test_an_extractor_that_came_after_the_measurement_is_no_go_with_the_command_that_measures_anew(
    with_results, capsys
):
    project, _, _ = with_results
    entry = load_params(project / "params.yaml").evaluate.extractors[-1]
    path = project / "data" / "reference" / "manifest.json"
    manifest = read_record(path, ReferenceManifest, made_by="reference")
    without = {"extractors": manifest.extractors[:-1], "left_out": {entry: "it was not there"}}
    write_record(path, manifest.model_copy(update=without))
    _, error = refusal(capsys, "check", "--fast")
    assert f"{entry} was not there when the scores were measured" in error
    assert "dvc repro --force --single-item reference && dvc repro" in error


def test_an_extractor_that_was_gone_while_the_samples_were_scored_is_no_go_with_the_command(with_results, capsys):
    project, _, _ = with_results
    entry = load_params(project / "params.yaml").evaluate.extractors[-1]
    evaluation = EvaluationManifest(
        extractors=(), metric_keys=(), nulls={}, real_scores={}, n_real=0, samples_sha256="", reference_sha256="",
        targets={}, left_out={entry: "it was not there"}, library_versions={}, files={},
    )  # fmt: skip
    write_record(project / "data" / "evaluation" / "manifest.json", evaluation)
    _, error = refusal(capsys, "check", "--fast")
    assert f"{entry} was not there when the scores were measured" in error
    assert "dvc repro --force --single-item evaluate && dvc repro" in error


def test_scores_that_dvc_takes_anew_anyway_are_no_problem(with_results, capsys, monkeypatch):
    """Only evaluate runs again, say for its code or a parameter: then the extractor is measured with by itself."""
    project, _, _ = with_results
    entry = load_params(project / "params.yaml").evaluate.extractors[-1]
    evaluation = EvaluationManifest(
        extractors=(), metric_keys=(), nulls={}, real_scores={}, n_real=0, samples_sha256="", reference_sha256="",
        targets={}, left_out={entry: "it was not there"}, library_versions={}, files={},
    )  # fmt: skip
    write_record(project / "data" / "evaluation" / "manifest.json", evaluation)
    monkeypatch.setattr("loupe.preflight.changed_params", lambda *_: {"evaluate": "a parameter changed"})
    cli.main(["check", "--fast"])
    assert "scorers" in lines_of(capsys.readouterr().out)


def test_prompts_are_checked_once_the_base_model_has_come(project, capsys, monkeypatch):
    """The first look can read no prompt with a tokenizer that is not there yet."""
    monkeypatch.setattr("loupe.diffusion.base_model.base_model_on_disk", lambda *_args, **_options: None)
    whole = load_params(project / "params.yaml").model.base
    monkeypatch.setattr("loupe.diffusion.base_model.resolve_base_model", lambda *_args, **_options: Path(whole))
    change(project, "generate", prompts={"long": "shoes " * 200})
    _, error = refusal(capsys, "check")
    assert "long" in error
    assert "tokens" in error


def test_adapters_of_another_dtype_than_the_environment_asks_for_are_no_go(with_results, capsys, monkeypatch):
    project, _, _ = with_results
    trained = CheckpointsManifest(
        base_model=BASE, fingerprint="f", checkpoints=(), effective_batch_size=1, device="a GPU",
        dtype="bfloat16", library_versions={},
    )  # fmt: skip
    write_record(project / "data" / "checkpoints" / "manifest.json", trained)
    cli.main(["check", "--fast"])
    assert "scorers" in lines_of(capsys.readouterr().out), "that this machine computes otherwise is no mistake"
    monkeypatch.setenv("LOUPE_DTYPE", "float32")
    _, error = refusal(capsys, "check", "--fast")
    assert "LOUPE_DTYPE asks for float32, the adapters in data/checkpoints were trained in bfloat16" in error
    assert "dvc repro --force --single-item train && dvc repro" in error
    change(project, "train", learning_rate=1.0e-5)
    cli.main(["check", "--fast"])
    assert "scorers" in lines_of(capsys.readouterr().out), "it is trained anew anyway"


def test_a_base_model_whose_weights_changed_is_no_go_with_the_command_that_encodes_anew(with_results, capsys):
    _, own, _ = with_results
    file = next((own / "unet").glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    _, error = refusal(capsys, "check", "--fast")
    assert f"model.base: {own} is not what data/latents and the adapters were made with" in error
    assert "dvc repro --force --single-item encode && dvc repro" in error


@pytest.mark.parametrize("reason", ["parameters", "no lock", "no results"])
def test_what_dvc_runs_again_anyway_is_no_problem(with_results, capsys, reason):
    project, _, weights = with_results
    weights.write_bytes(b"Weights")
    if reason == "parameters":
        change(project, "evaluate", batch_size=7)
    elif reason == "no lock":
        (project / "dvc.lock").unlink()
    else:
        shutil.rmtree(project / "data" / "reference")
    cli.main(["check", "--fast"])
    assert "scorers" in lines_of(capsys.readouterr().out)


# --- memory ----------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_said_and_not_tried(project, capsys, monkeypatch):
    monkeypatch.setattr(trial_run, "try_training", lambda *_, **__: pytest.fail("training was tried"))
    monkeypatch.setattr(trial_run, "try_drawing", lambda *_, **__: pytest.fail("drawing was tried"))
    free = memory.PROCESS_BYTES["cpu"] // 2
    monkeypatch.setattr(train_memory, "available_bytes", lambda policy: free)
    out, error = refusal(capsys, "check")
    assert "No go: params.yaml: 2 problems" in error
    assert "training, with what is done with a checkpoint beside it, needs about 1.5 GB on cpu, and 0.8 GB" in error
    assert "drawing 8 pictures together of 64 x 64 px needs about 1.5 GB on cpu" in error
    assert "No setting would fit" in error
    assert "No resolution would fit" in error
    assert "\ngo " not in out


def test_on_a_gpu_fewer_pictures_together_are_advised_and_no_problem(project, capsys, monkeypatch):
    base = Path(load_params(project / "params.yaml").model.base)
    cost = drawing_cost(base, latent_side=8, text_tokens=77, policy=DevicePolicy("cpu", "float32", ""))
    free = memory.drawing_bytes(cost, n_pictures=8, guided=True, device="cpu") - 1
    tried = []
    monkeypatch.setattr(train_memory, "available_bytes", lambda policy: free)
    monkeypatch.setattr("loupe.diffusion.picture_rows.takes_fewer", lambda policy: True)
    monkeypatch.setattr(
        trial_run, "try_drawing", lambda *_, **k: tried.append(k["batch_size"]) or DrawingTrial(0.1, 0.1, None)
    )
    with contextlib.suppress(SystemExit):
        cli.main(["check"])
    out, error = capsys.readouterr()
    assert "for 4 pictures together, estimated; not 8, which do not fit" in lines_of(out)["memory"]
    assert tried == [4]
    assert "drawing" not in error


def test_training_recomputes_activations_where_it_would_not_fit_otherwise(project, capsys, monkeypatch):
    params, base = load_params(project / "params.yaml"), Path(load_params(project / "params.yaml").model.base)
    adapter = AdapterConfig(params.train.rank, params.train.alpha, ("to_k", "to_out.0", "to_q", "to_v"), str(base))
    cost = unet_cost(base, adapter=adapter, latent_side=8, text_tokens=77, policy=DevicePolicy("cpu", "float32", ""))
    asked = memory.TrainingSetting(
        resolution_px=64, batch_size=4, gradient_accumulation_steps=1, gradient_checkpointing=False,
        beside=memory.Beside(cost.weight_bytes, 16 * cost.row_bytes),
    )  # fmt: skip
    without = memory.run_bytes(cost, asked, device="cpu")
    monkeypatch.setattr(train_memory, "available_bytes", lambda policy: without - 1)
    monkeypatch.setattr(trial_run, "try_drawing", lambda *_, **__: DrawingTrial(0.1, 0.1, None))
    seen = []
    real = trial_run.try_training
    monkeypatch.setattr(
        trial_run, "try_training", lambda *a, **k: seen.append(k["gradient_checkpointing"]) or real(*a, **k)
    )
    with contextlib.suppress(SystemExit):
        cli.main(["check"])
    assert seen == [True]
    assert "with gradient checkpointing" in lines_of(capsys.readouterr().out)["memory"]


def test_a_black_picture_is_no_go(project, capsys, monkeypatch):
    monkeypatch.setattr(trial_run, "try_drawing", lambda *_, **__: DrawingTrial(0.1, 0.1, "black"))
    out, error = refusal(capsys, "check")
    assert "black" in lines_of(out)["drawing"]
    assert "the base model draws a picture that is black" in error


def test_running_out_of_device_memory_is_a_sentence(project, capsys, monkeypatch):
    import torch

    def try_training(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(trial_run, "try_training", try_training)
    _, error = refusal(capsys, "check")
    assert "The memory of cpu is full. This training was estimated to take" in error
    assert "The nearest setting that takes less: data.resolution 64, train.batch_size" in error


def test_a_loss_that_is_not_finite_is_no_go(project, capsys, monkeypatch):
    real = trial_run.made_up_examples

    def with_nan(*arguments, **options):
        examples = real(*arguments, **options)
        return replace(examples, std=examples.std * float("nan"))

    monkeypatch.setattr(trial_run, "made_up_examples", with_nan)
    _, error = refusal(capsys, "check")
    assert "not finite" in error
    assert "made-up-0" in error


# --- several processes -----------------------------------------------------------------------------------------------


def test_processes_on_a_cpu_share_its_memory_and_a_step_takes_the_photos_of_all(project, monkeypatch, capsys):
    monkeypatch.setattr(train_memory, "available_bytes", lambda policy: 12_000_000_000)
    monkeypatch.setenv("LOUPE_LAUNCH", "--multi_gpu --num_machines 2 --num_processes 6")
    cli.main(["check"])
    report = lines_of(capsys.readouterr().out)
    assert report["processes"].startswith("6, as LOUPE_LAUNCH asks: a step takes 6 x 4 = 24 photos;")
    assert "the cores that 3 will share" in report["processes"]
    assert "4.0 GB free" in report["memory"]


def test_several_processes_where_memory_holds_one_are_no_go(project, monkeypatch, capsys):
    monkeypatch.setattr(train_memory, "available_bytes", lambda policy: 4_000_000_000)
    cli.main(["check"])
    assert "go " in capsys.readouterr().out
    monkeypatch.setenv("LOUPE_LAUNCH", "--num_processes 4")
    _, problems = refusal(capsys, "check")
    assert "needs about" in problems


def test_more_processes_than_gpus_are_no_go(project, monkeypatch):
    from loupe.diffusion.processes import require_a_device_each

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    require_a_device_each("cuda", 2)
    with pytest.raises(PipelineError, match=r"4 processes were started on this machine, which shows 2 GPUs"):
        require_a_device_each("cuda", 4)
    monkeypatch.setattr("loupe.diffusion.device.choose_device", lambda: DevicePolicy("mps", "float32", "test"))
    monkeypatch.setenv("LOUPE_LAUNCH", "--num_processes 4")
    with pytest.raises(PipelineError, match="not on a Mac's GPU"):
        cli._check(load_params(Path("params.yaml")), ProjectPaths(project), cli._parser().parse_args(["check"]))
