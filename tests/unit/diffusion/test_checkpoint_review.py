"""Validation and previews inside the train stage: what they leave, what they reuse, and that training feels neither."""

import csv
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from loupe.atomic_io import read_record, sha256_file
from loupe.diffusion import generation, previews, training, validation_files
from loupe.diffusion.adapter import load_adapter, set_adapter_state
from loupe.diffusion.device import DevicePolicy
from loupe.diffusion.device_memory import DeviceFull
from loupe.diffusion.latent_files import read_examples
from loupe.diffusion.model_loading import load_noise_scheduler, load_unet
from loupe.diffusion.previews import plan_previews
from loupe.diffusion.validation import make_validation_set, validation_losses
from loupe.errors import PipelineError
from loupe.params import load_params
from loupe.paths import ProjectPaths
from loupe.records import CheckpointsManifest, SamplesManifest
from loupe.run_store import RunStore
from loupe.run_training import previews as shown_previews
from loupe.run_training import train_telemetry, validation_curve, validation_timesteps
from loupe.workstore import WorkStore
from stages.generate import generate
from stages.train import train
from tests.unit.diffusion.tiny_project import write_encoded_project, write_params
from tests.unit.diffusion.tiny_training import CPU

GENERATE = {"num_inference_steps": 2, "val_captions": 1, "seeds_per_prompt": 3, "batch_size": 4}
N_PROMPTS, STEPS = 4, (0, 2, 4, 6)
CURVES = ("validation.csv", "validation_timesteps.csv")


@pytest.fixture(autouse=True)
def _as_dvc_runs_it(monkeypatch):
    monkeypatch.setenv("LOUPE_DEVICE", "cpu")
    monkeypatch.delenv("DVC_ROOT", raising=False)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, tiny_base_model):
    return write_encoded_project(tmp_path_factory.mktemp("review") / "project", base=tiny_base_model, n_val=3)


@pytest.fixture(scope="module")
def finished(encoded, tiny_base_model, tmp_path_factory):
    """A run with EMA and previews of two prompts, to be copied before it is changed."""
    root = shutil.copytree(encoded, tmp_path_factory.mktemp("finished") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOUPE_DEVICE", "cpu")
        run(root, tiny_base_model, patch, ema_decay=0.5, preview_prompts=2)
    return root


@pytest.fixture
def project(encoded, tmp_path):
    return shutil.copytree(encoded, tmp_path / "project")


@pytest.fixture
def done(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "done")


def params_of(root: Path, base: Path, **settings):
    write_params(root, base=base, train=settings)
    params = load_params(root / "params.yaml")
    return params.model_copy(update={"generate": params.generate.model_copy(update=GENERATE)})


def run(root, base, patch, **settings) -> CheckpointsManifest:
    patch.chdir(root)
    train(params_of(root, base, **settings), ProjectPaths(root), WorkStore(root / ".work"))
    return read_record(root / "data" / "checkpoints" / "manifest.json", CheckpointsManifest, made_by="train")


def results(root: Path) -> dict[str, bytes]:
    """Everything that DVC or git keeps of a training."""
    files = [*(root / "data" / "checkpoints").rglob("*"), *(root / "metrics").iterdir()]
    return {str(f.relative_to(root)): f.read_bytes() for f in files if f.is_file()}


def curve_steps(root: Path) -> list[int]:
    with (root / "metrics" / "validation.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def refuse(*arguments, **options):
    raise AssertionError("a model was loaded although nothing is to be computed")


# --- validation ------------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_curves_and_every_single_loss(done):
    manifest = read_record(done / "data" / "checkpoints" / "manifest.json", CheckpointsManifest, made_by="train")
    file = done / "data" / "checkpoints" / "validation.safetensors"
    assert manifest.files == {"validation.safetensors": sha256_file(file)}
    with safe_open(file, framework="pt") as opened:
        losses, steps = opened.get_tensor("losses"), opened.get_tensor("steps")
        timesteps, image_ids = opened.get_tensor("timesteps"), opened.metadata()["image_ids"]
    assert (losses.shape, losses.dtype) == ((4, 3, 8), torch.float32)
    assert (steps.tolist(), image_ids) == (list(STEPS), '["val0", "val1", "val2"]')
    assert timesteps.tolist() == [62, 187, 312, 437, 562, 687, 812, 937]

    store = RunStore(done)
    curve = validation_curve(store)
    assert [(row.step, row.n_images) for row in curve] == [(step, 3) for step in STEPS]
    assert [row.val_loss for row in curve] == pytest.approx(losses.double().mean(dim=(1, 2)).tolist())
    points = validation_timesteps(store)
    assert [point.loss for point in points] == pytest.approx(losses.double().mean(dim=1).flatten().tolist())
    assert curve[0].val_loss_diff_base is None
    assert all(row.val_loss_diff_base not in (None, 0.0) for row in curve[1:])


def test_it_is_the_checkpoint_that_is_measured_and_not_the_weights_that_go_on_training(done, tiny_base_model):
    """With a moving average the two differ; step 0 is the base model without any adapter."""
    paths = ProjectPaths(done)
    manifest = read_record(paths.checkpoints / "manifest.json", CheckpointsManifest, made_by="train")
    data = make_validation_set(
        read_examples(paths.latents, "val", base=manifest.base_model),
        alphas_cumprod=load_noise_scheduler(tiny_base_model).alphas_cumprod,
        n_timesteps=8,
        prediction_type="epsilon",
        scaling_factor=manifest.base_model.scaling_factor,
        seed=load_params(done / "params.yaml").seed,
    )
    with safe_open(paths.checkpoints / "validation.safetensors", framework="pt") as opened:
        stored = dict(zip(STEPS, opened.get_tensor("losses"), strict=True))
    unet = load_unet(tiny_base_model, device="cpu", dtype=torch.float32)
    assert torch.equal(validation_losses(unet, data, policy=CPU, what="base"), stored[0])
    load_adapter(unet, paths.checkpoints / "step-000006")
    assert torch.equal(validation_losses(unet, data, policy=CPU, what="step 6"), stored[6])
    [state] = (done / ".work" / "train").rglob("*-000006.safetensors")
    with safe_open(state, framework="pt") as opened:
        live = {k.removeprefix("adapter/"): opened.get_tensor(k) for k in opened.keys() if k.startswith("adapter/")}  # noqa: SIM118
    set_adapter_state(unet, live)
    assert not torch.equal(validation_losses(unet, data, policy=CPU, what="live"), stored[6])


def test_a_second_run_measures_and_draws_nothing_and_leaves_the_same_bytes(done, tiny_base_model, monkeypatch):
    before = results(done)
    assert set(CURVES) <= {Path(name).name for name in before}
    for folder in (done / "data" / "checkpoints", done / "metrics", done / ".work" / "previews"):
        shutil.rmtree(folder)
    monkeypatch.setattr(validation_files, "load_unet", refuse)
    monkeypatch.setattr(generation, "load_unet", refuse)
    run(done, tiny_base_model, monkeypatch, ema_decay=0.5, preview_prompts=2)
    assert results(done) == before
    assert (done / ".work" / "previews" / "manifest.json").is_file()


def test_a_damaged_stored_loss_is_said_and_measured_anew(done, tiny_base_model, monkeypatch, capsys):
    before = results(done)
    cut, flipped, replaced, *_ = sorted((done / ".work" / "validation").rglob("*.safetensors"))
    cut.write_bytes(cut.read_bytes()[:-4])
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"\x7f")
    replaced.unlink()
    replaced.mkdir()
    run(done, tiny_base_model, monkeypatch, ema_decay=0.5, preview_prompts=2)
    assert capsys.readouterr().out.count("a stored loss is damaged") == 3
    assert results(done) == before


def test_more_timesteps_measure_anew_and_train_nothing(done, tiny_base_model, monkeypatch, capsys):
    adapters = {name: content for name, content in results(done).items() if "adapter_model" in name}
    capsys.readouterr()
    run(done, tiny_base_model, monkeypatch, ema_decay=0.5, validation_timesteps=10)
    assert "train: computed=0 reused=6" in capsys.readouterr().out
    assert {row.timestep for row in validation_timesteps(RunStore(done))} == set(range(50, 1000, 100))
    assert adapters.items() <= results(done).items()


def test_the_curve_grows_while_training_runs(project, tiny_base_model, monkeypatch):
    original = training.Trainer._backward

    def stop_at_step_5(trainer, step, part):
        if step == 5:
            raise KeyboardInterrupt
        return original(trainer, step, part)

    monkeypatch.setattr(training.Trainer, "_backward", stop_at_step_5)
    with pytest.raises(KeyboardInterrupt):
        run(project, tiny_base_model, monkeypatch)
    assert curve_steps(project) == [0, 2, 4]


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_what_came_before(project, tiny_base_model, monkeypatch):
    original = validation_files.validation_losses

    def poisoned(unet, data, *, what, **options):
        losses = original(unet, data, what=what, **options)
        losses[1] = losses[1] * (float("nan") if what.endswith("step 4") else 1)
        return losses

    monkeypatch.setattr(validation_files, "validation_losses", poisoned)
    with pytest.raises(PipelineError, match=r"Validation stopped at step 4: .* 1 of 3 val images: val1\."):
        run(project, tiny_base_model, monkeypatch)
    assert curve_steps(project) == [0, 2]
    assert (project / "data" / "checkpoints" / "step-000002" / "checkpoint.json").is_file()
    assert not (project / "data" / "checkpoints" / "manifest.json").exists()


# --- previews --------------------------------------------------------------------------------------------------------


def test_training_comes_out_the_same_with_previews_and_without(done, project, tiny_base_model, monkeypatch):
    run(project, tiny_base_model, monkeypatch, ema_decay=0.5, preview_prompts=0)
    assert results(project) == results(done)
    assert list(shown_previews(RunStore(project))) == []
    assert not list((project / ".work").glob("samples/*/*.png"))


def test_previews_show_the_first_prompts_at_the_base_and_every_checkpoint(done):
    views = list(shown_previews(RunStore(done)))
    assert {view.prompt_id for view in views} == {"black_shoes", "red_shoes"}
    assert {view.step for view in views if view.prompt_id == "red_shoes" and view.seed_index == 0} == set(STEPS)
    assert {view.seed_index for view in views} == {0, 1, 2}, "the places left over in a batch of eight draw more seeds"


def test_generate_finds_the_previews_and_draws_the_rest(done, tiny_base_model, monkeypatch, capsys):
    monkeypatch.chdir(done)
    drawn = read_record(done / ".work" / "previews" / "manifest.json", SamplesManifest, made_by="train").samples
    capsys.readouterr()
    params = params_of(done, tiny_base_model, ema_decay=0.5, preview_prompts=2)
    generate(params, ProjectPaths(done), WorkStore(done / ".work"))
    whole = (N_PROMPTS + GENERATE["val_captions"]) * GENERATE["seeds_per_prompt"] * len(STEPS)
    assert f"generate: computed={whole - len(drawn)} reused={len(drawn)}" in capsys.readouterr().out
    final = read_record(done / "data" / "samples" / "manifest.json", SamplesManifest, made_by="generate").samples
    assert {(s.file, s.seed, s.sha256) for s in drawn} <= {(s.file, s.seed, s.sha256) for s in final}


def test_a_preview_that_does_not_fit_is_said_and_training_goes_on(project, tiny_base_model, monkeypatch, capsys):
    calls = []

    def full(*arguments, **options):
        calls.append(options["steps"])
        raise DeviceFull("The memory of cuda did not hold one picture")

    monkeypatch.setattr(previews, "render_samples", full)
    manifest = run(project, tiny_base_model, monkeypatch, preview_prompts=2, max_steps=2, lr_warmup_steps=1)
    assert [checkpoint.step for checkpoint in manifest.checkpoints] == [2]
    assert calls == [[0]]
    assert (
        "no more in this run; training goes on. The memory of cuda did not hold one picture" in capsys.readouterr().out
    )


def test_a_prompt_that_is_too_long_is_refused_before_the_first_step(project, tiny_base_model, monkeypatch):
    monkeypatch.chdir(project)
    params = params_of(project, tiny_base_model, preview_prompts=1)
    prompts = params.generate.model_copy(update={"prompts": {"long": "red " * 90}})
    monkeypatch.setattr(training.Trainer, "run", refuse)
    with pytest.raises(PipelineError, match=r"generate\.prompts\.long: 92 tokens"):
        train(params.model_copy(update={"generate": prompts}), ProjectPaths(project), WorkStore(project / ".work"))


def test_the_plan_takes_the_first_prompts_and_fills_generates_batch():
    prompts = {f"p{number}": f"text {number}" for number in range(5)}
    on_gpu = DevicePolicy("cuda", "bfloat16", "test")

    def plan(count, seeds_per_prompt, policy):
        made = plan_previews(prompts, count, seeds_per_prompt=seeds_per_prompt, batch_size=16, policy=policy)
        assert made.batch_size == 16
        return [prompt.prompt_id for prompt in made.prompts], made.seeds_per_prompt

    assert plan(4, 4, CPU) == (["p0", "p1", "p2", "p3"], 2)
    assert plan(4, 1, CPU) == (["p0", "p1", "p2", "p3"], 1)
    assert plan(1, 4, CPU) == (["p0"], 4)
    assert plan(9, 4, CPU) == (["p0", "p1", "p2", "p3", "p4"], 1)
    assert plan(4, 9, on_gpu) == (["p0", "p1", "p2", "p3"], 4)
    assert plan(4, 3, on_gpu) == (["p0", "p1", "p2", "p3"], 3)
    assert plan(0, 4, CPU)[0] == []


def test_pictures_are_drawn_in_full_batches_where_some_are_there_already():
    """Eight prompts, steps 0 and 75; the previews of step 75 are there for the first four."""

    class Item:
        def __init__(self, step):
            self.step = step

    missing = [Item(step) for prompt in range(20) for step in (0, 75) if step == 0 or prompt >= 4]
    groups = generation._groups(missing, 8)
    assert [(group[0].step, len(group)) for group in groups] == [(0, 8), (75, 8), (0, 8), (75, 8), (0, 4)]
    assert all(item.step == group[0].step for group in groups for item in group)


# --- telemetry and trackers ------------------------------------------------------------------------------------------


def test_speed_and_memory_are_kept_out_of_the_results(done):
    rows = train_telemetry(RunStore(done))
    assert rows[-1].step == 6
    assert all(row.images_per_s > 0 and row.peak_memory_gb > 0 for row in rows)
    assert not any("memory" in name or b"images_per_s" in content for name, content in results(done).items())


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_loaded(project, tiny_base_model, monkeypatch):
    monkeypatch.setattr("loupe.diffusion.trackers.find_spec", lambda name: None)
    monkeypatch.setattr("loupe.diffusion.base_model.resolve_base_model", refuse)
    with pytest.raises(PipelineError, match=r"train.trackers asks for tensorboard, wandb, which is not installed"):
        run(project, tiny_base_model, monkeypatch, trackers=["tensorboard", "wandb"])
