import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from loupe.atomic_io import empty_folder, read_record, sha256_file
from loupe.diffusion import generation, picture_store, sample_plan, text_vectors
from loupe.diffusion.device import choose_device
from loupe.diffusion.generation import render_samples
from loupe.diffusion.model_loading import load_noise_scheduler, load_text_encoder, load_tokenizer, load_unet, load_vae
from loupe.diffusion.processes import ALONE, Processes
from loupe.diffusion.sample_plan import AdapterSource, plan_samples
from loupe.diffusion.sampling import DrawingModel, PictureRequest, SamplingSettings, embed_texts, sample_pictures
from loupe.diffusion.validity import BLACK_BELOW_MEAN
from loupe.errors import PipelineError
from loupe.records import PromptRecord, SamplesManifest
from loupe.workstore import WorkStore
from tests.tiny_models import TINY_SIDE_PX
from tests.unit.diffusion.tiny_checkpoints import made_up_adapter, write_checkpoint, write_checkpoints

SETTINGS = SamplingSettings(TINY_SIDE_PX, TINY_SIDE_PX, 3.0, 3, "")
RED = PromptRecord(prompt_id="red", text="a photo of red shoes", colour="Red")
BLUE = PromptRecord(prompt_id="val_7", text="blue shoes", colour="Blue")
STEPS = (0, 2, 4)


@pytest.fixture(scope="module")
def source(tiny_base_model, tmp_path_factory) -> AdapterSource:
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"), tiny_base_model, (2, 4))


@pytest.fixture(scope="module")
def full_store(source, tmp_path_factory):
    """A work store that has every picture of RED and BLUE, two seeds, all steps; copy it before changing it."""
    root = tmp_path_factory.mktemp("full")
    _render(source, root, [RED, BLUE])
    return root


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setenv("LOUPE_DEVICE", "cpu")


@pytest.fixture
def no_model(monkeypatch):
    """Fail when a model is loaded."""

    def refuse(*args, **options):
        raise AssertionError("a model was loaded although nothing is to be drawn")

    for name in ("load_unet", "load_vae", "load_tokenizer"):
        monkeypatch.setattr(generation, name, refuse)
    monkeypatch.setattr(text_vectors, "load_text_encoder", refuse)


class _InTurn(Processes):
    """One of several processes that run one after the other, so there is nobody to talk to."""

    def from_main(self, tensor):
        tensor.fill_(1)

    def require_same(self, what, text):
        pass

    def least(self, number):
        return number


def _render(
    source, root, prompts, *, steps=STEPS, seeds_per_prompt=2, purpose="generate", settings=SETTINGS, processes=ALONE
):
    return render_samples(
        source,
        steps=steps,
        prompts=prompts,
        seeds_per_prompt=seeds_per_prompt,
        purpose=purpose,
        root_seed=42,
        settings=settings,
        batch_size=4,
        output=empty_folder(root / "samples"),
        store=WorkStore(root / ".work"),
        processes=processes,
    )


def _plan(source, **changes):
    options = {
        "steps": [0, 2], "prompts": [RED], "seeds_per_prompt": 1, "purpose": "generate", "root_seed": 42,
        "settings": SETTINGS, "policy": choose_device(), "n_rows": 8,
    }  # fmt: skip
    return plan_samples(source, **{**options, **changes})


def _keys(source, **changes):
    return [item.key for item in _plan(source, **changes)]


# --- what is written -----------------------------------------------------------------------------------------------


def test_every_prompt_seed_and_step_has_its_picture_and_its_record(full_store):
    samples = full_store / "samples"
    manifest = read_record(samples / "manifest.json", SamplesManifest, made_by="generate")
    found = [(s.prompt_id, s.seed_index, s.step, s.file) for s in manifest.samples]
    assert found == [
        (prompt, seed_index, step, f"{prompt}-{seed_index}/{step}.png")
        for prompt in ("red", "val_7")
        for seed_index in range(2)
        for step in STEPS
    ]
    for sample in manifest.samples:
        assert sha256_file(samples / sample.file) == sample.sha256
        with Image.open(samples / sample.file) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (TINY_SIDE_PX, TINY_SIDE_PX))
    assert manifest.steps == STEPS
    assert manifest.prompts == (RED, BLUE)
    assert {p.name for p in samples.iterdir()} == {"red-0", "red-1", "val_7-0", "val_7-1", "manifest.json"}


def test_each_picture_is_what_its_own_model_draws(source, full_store):
    """Step 0 against a UNet that never had an adapter, step 4 against one that never had another."""
    on_cpu = {"device": "cpu", "dtype": torch.float32}
    base = source.base_folder
    embeddings = embed_texts(
        [RED.text, ""], tokenizer=load_tokenizer(base), text_encoder=load_text_encoder(base, **on_cpu)
    )
    manifest = read_record(full_store / "samples" / "manifest.json", SamplesManifest, made_by="generate")
    seed = next(s.seed for s in manifest.samples if s.prompt_id == "red" and s.seed_index == 1)
    pictures = []
    for step in (0, 4):
        unet = load_unet(base, **on_cpu)
        if step:
            generation.load_adapter(unet, source.checkpoints_folder / "step-000004")
        model = DrawingModel(unet, load_vae(base, **on_cpu), load_noise_scheduler(base), choose_device())
        request = PictureRequest(RED.text, seed)
        expected = next(sample_pictures(model, [request], embeddings=embeddings, settings=SETTINGS, batch_size=1))
        with Image.open(full_store / "samples" / f"red-1/{step}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), expected.pixels)
        pictures.append(expected.pixels)
    assert not np.array_equal(*pictures)


def test_the_base_model_draws_without_the_adapter_that_was_on_before(source, tmp_path):
    """Nine seeds in groups of eight: step 0, step 2, and step 0 again, which must not come out as step 2 does."""
    _render(source, tmp_path / "both", [RED], steps=(0, 2), seeds_per_prompt=9)
    _render(source, tmp_path / "base", [RED], steps=(0,), seeds_per_prompt=9)
    last = [tmp_path / root / "samples" / "red-8" for root in ("both", "base")]
    assert (last[0] / "0.png").read_bytes() == (last[1] / "0.png").read_bytes()
    assert (last[0] / "0.png").read_bytes() != (last[0] / "2.png").read_bytes()


def test_every_part_of_the_model_is_loaded_once_for_all_steps_and_batches(source, tmp_path, monkeypatch):
    """And every text goes through the text encoder once."""
    loaded, texts = [], []
    for module, name in ((generation, "load_unet"), (generation, "load_vae"), (text_vectors, "load_text_encoder")):
        load = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, _load=load, _name=name, **o: loaded.append(_name) or _load(*a, **o)
        )
    embed = text_vectors.embed_texts
    monkeypatch.setattr(text_vectors, "embed_texts", lambda t, **o: texts.extend(t) or embed(t, **o))
    manifest = _render(source, tmp_path, [RED, BLUE], seeds_per_prompt=9).manifest
    assert len(manifest.samples) == 2 * 9 * len(STEPS)
    assert sorted(loaded) == ["load_text_encoder", "load_unet", "load_vae"]
    assert sorted(texts) == sorted([RED.text, BLUE.text, ""])


def test_the_seeds_of_a_prompt_differ_and_so_do_their_pictures(full_store):
    manifest = read_record(full_store / "samples" / "manifest.json", SamplesManifest, made_by="generate")
    base = [sample for sample in manifest.samples if sample.step == 0]
    assert len({sample.seed for sample in base}) == len({sample.sha256 for sample in base}) == len(base) == 4


def test_the_three_steps_of_a_seed_differ_and_share_their_seed(full_store):
    manifest = read_record(full_store / "samples" / "manifest.json", SamplesManifest, made_by="generate")
    red = [s for s in manifest.samples if s.prompt_id == "red" and s.seed_index == 0]
    assert len({s.sha256 for s in red}) == 3
    assert len({s.seed for s in red}) == 1


# --- reuse ---------------------------------------------------------------------------------------------------------


def test_a_second_run_draws_nothing_and_writes_the_same_bytes(source, full_store, tmp_path, no_model):
    root = shutil.copytree(full_store, tmp_path / "run")
    before = {p.relative_to(root): p.read_bytes() for p in (root / "samples").rglob("*") if p.is_file()}
    again = _render(source, root, [RED, BLUE])
    assert (again.n_computed, again.n_reused) == (0, 12)
    assert {p.relative_to(root): p.read_bytes() for p in (root / "samples").rglob("*") if p.is_file()} == before


def test_a_further_prompt_draws_only_its_own_pictures(source, full_store, tmp_path):
    root = shutil.copytree(full_store, tmp_path / "run")
    black = PromptRecord(prompt_id="black", text="black shoes", colour=None)
    rendered = _render(source, root, [black, RED, BLUE])
    assert (rendered.n_computed, rendered.n_reused) == (6, 12)


def test_a_further_checkpoint_draws_only_its_own_pictures_even_half_way(source, full_store, tmp_path):
    root = shutil.copytree(full_store, tmp_path / "run")
    folder = shutil.copytree(source.checkpoints_folder, tmp_path / "checkpoints")
    info = write_checkpoint(folder, 6, made_up_adapter(source.base_folder, seed=6))
    checkpoints = source.checkpoints.model_copy(update={"checkpoints": (*source.checkpoints.checkpoints, info)})
    longer = replace(source, checkpoints=checkpoints, checkpoints_folder=folder)
    rendered = _render(longer, root, [RED, BLUE], steps=(*STEPS, 6))
    assert (rendered.n_computed, rendered.n_reused) == (4, 12)


@pytest.mark.parametrize("damage", ["truncated picture", "missing picture", "broken record"])
def test_a_damaged_store_entry_is_drawn_anew(source, full_store, tmp_path, damage):
    root = shutil.copytree(full_store, tmp_path / "run")
    expected = (root / "samples" / "red-0" / "0.png").read_bytes()
    item = _plan(source, steps=[0])[0]
    suffix = ".json" if damage == "broken record" else ".png"
    entry = WorkStore(root / ".work").get(picture_store.STORE_KIND, item.key, suffix)
    if damage == "missing picture":
        entry.unlink()
    else:
        entry.write_bytes(entry.read_bytes()[:-9])
    rendered = _render(source, root, [RED, BLUE])
    assert (rendered.n_computed, rendered.n_reused) == (1, 11)
    assert (root / "samples" / "red-0" / "0.png").read_bytes() == expected


def test_the_confirm_purpose_draws_from_other_seeds(source):
    (generate,) = _plan(source, steps=[0])
    (confirm,) = _plan(source, steps=[0], purpose="confirm")
    assert generate.seed != confirm.seed
    assert generate.key != confirm.key


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": replace(SETTINGS, guidance_scale=3.5)},
        {"settings": replace(SETTINGS, num_inference_steps=4)},
        {"settings": replace(SETTINGS, negative_prompt="blue")},
        {"settings": replace(SETTINGS, width_px=128)},
        {"root_seed": 43},
        {"n_rows": 4},
        {"prompts": [PromptRecord(prompt_id="red", text="a photo of red shoes.", colour="Red")]},
    ],
)
def test_whatever_decides_a_picture_is_in_its_key(source, changed):
    assert not set(_keys(source, **changed)) & set(_keys(source))


def test_the_adapter_is_in_the_key_of_its_own_pictures_only(source, tmp_path):
    folder = shutil.copytree(source.checkpoints_folder, tmp_path / "checkpoints")
    stronger = write_checkpoint(folder, 2, made_up_adapter(source.base_folder, seed=3))
    checkpoints = source.checkpoints.model_copy(update={"checkpoints": (stronger,)})
    base_before, adapted_before = _keys(source)
    base_after, adapted_after = _keys(replace(source, checkpoints=checkpoints, checkpoints_folder=folder))
    assert base_after == base_before
    assert adapted_after != adapted_before


@pytest.mark.parametrize(
    "changed", [{"rank": 9}, {"alpha": 99.0}, {"target_modules": ("to_q",)}, {"use_dora": True}, {"use_rslora": True}]
)
def test_what_is_not_in_the_weights_changes_the_key_by_itself(source, changed):
    info = source.checkpoints.checkpoints[0].model_copy(update=changed)
    assert info != source.checkpoints.checkpoints[0]
    checkpoints = source.checkpoints.model_copy(update={"checkpoints": (info,)})
    assert _keys(replace(source, checkpoints=checkpoints))[1] != _keys(source)[1]


@pytest.mark.parametrize("name", ["device_identity", "library_versions", "source_fingerprint"])
def test_another_machine_other_libraries_and_other_code_change_every_key(source, monkeypatch, name):
    before = _keys(source)
    monkeypatch.setattr(sample_plan, name, lambda *_: "another")
    assert not set(before) & set(_keys(source))


def test_the_precision_is_in_every_key(source):
    policy = replace(choose_device(), dtype_name="bfloat16")
    assert not set(_keys(source)) & set(_keys(source, policy=policy))


def test_the_seed_of_a_prompt_does_not_depend_on_the_other_prompts(source):
    assert _keys(source, prompts=[BLUE, RED])[2:] == _keys(source)


# --- several processes (that talk to each other: test_processes.py) --------------------------------------------------


def test_what_a_process_has_drawn_out_of_sight_of_the_others_is_told_not_left_out(source, tmp_path):
    with pytest.raises(PipelineError, match=r"drawn by another process.*put it on a disk that the machines share"):
        _render(source, tmp_path, [RED], processes=_InTurn(0, 2))
    samples = tmp_path / "samples"
    assert not (samples / "manifest.json").exists()
    assert sorted(path.name for path in (samples / "red-0").iterdir()) == ["0.png", "4.png"]


def test_the_last_of_several_processes_completes_the_pictures_but_only_the_main_one_writes_a_manifest(
    source, full_store, tmp_path
):
    with pytest.raises(PipelineError):
        _render(source, tmp_path, [RED], processes=_InTurn(0, 2))
    rendered = _render(source, tmp_path, [RED], processes=_InTurn(1, 2))
    assert rendered.n_computed == 6
    assert (tmp_path / "samples" / "red-1" / "2.png").read_bytes() == (full_store / "samples/red-1/2.png").read_bytes()
    assert not (tmp_path / "samples" / "manifest.json").exists()


# --- mistakes ------------------------------------------------------------------------------------------------------


def test_an_adapter_that_is_not_the_trained_one_is_refused_with_the_mend(source, tmp_path):
    folder = shutil.copytree(source.checkpoints_folder, tmp_path / "checkpoints")
    write_checkpoint(folder, 2, made_up_adapter(source.base_folder, seed=99))
    (folder / "step-000004" / "adapter_model.safetensors").unlink()
    with pytest.raises(PipelineError, match=r"(?s)step-000002.*SHA-256.*step-000004.*not there.*dvc checkout"):
        _plan(replace(source, checkpoints_folder=folder), steps=[2, 4])


def test_a_step_that_was_never_trained_is_refused_with_those_that_were(source):
    with pytest.raises(PipelineError, match="step 3: there is no such checkpoint; there are 2, 4"):
        _plan(source, steps=[0, 3])


def test_another_base_model_than_the_adapters_is_refused(source):
    other = source.base_model.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(PipelineError, match=r"trained on the base model tiny.*dvc repro train"):
        _plan(replace(source, base_model=other))


def test_a_prompt_that_is_too_long_is_refused_before_anything_is_drawn(source, tmp_path):
    long = PromptRecord(prompt_id="long", text="red " * 90, colour=None)
    with pytest.raises(PipelineError, match=r"generate\.prompts\.long: 92 tokens"):
        _render(source, tmp_path, [RED, long])
    assert list((tmp_path / "samples").iterdir()) == []


def test_an_interrupted_run_leaves_no_manifest_and_its_pictures_are_reused(source, tmp_path, monkeypatch):
    write, written = picture_store._write_picture, []

    def fail_at_fourth(*arguments):
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        written.append(arguments)
        return write(*arguments)

    monkeypatch.setattr(picture_store, "_write_picture", fail_at_fourth)
    with pytest.raises(OSError, match="No space left"):
        _render(source, tmp_path, [RED])
    assert not (tmp_path / "samples" / "manifest.json").exists()
    monkeypatch.setattr(picture_store, "_write_picture", write)
    rendered = _render(source, tmp_path, [RED])
    assert (rendered.n_computed, rendered.n_reused) == (3, 3)


# --- pictures that cannot be used ------------------------------------------------------------------------------------


def test_pictures_that_are_not_finite_are_recorded_without_a_file_and_remembered(source, tmp_path, request):
    broken = {key: torch.full_like(t, float("nan")) for key, t in made_up_adapter(source.base_folder, seed=2).items()}
    info = write_checkpoint(tmp_path / "checkpoints", 2, broken)
    checkpoints = source.checkpoints.model_copy(update={"checkpoints": (info,)})
    diverged = replace(source, checkpoints=checkpoints, checkpoints_folder=tmp_path / "checkpoints")
    rendered = _render(diverged, tmp_path, [RED], steps=(0, 2), seeds_per_prompt=1)
    base, adapted = rendered.manifest.samples
    assert base.invalid_reason is None
    assert base.file == "red-0/0.png"
    assert (adapted.invalid_reason, adapted.file, adapted.sha256) == ("not finite", None, None)
    assert [p.name for p in (tmp_path / "samples" / "red-0").iterdir()] == ["0.png"]
    request.getfixturevalue("no_model")
    again = _render(diverged, tmp_path, [RED], steps=(0, 2), seeds_per_prompt=1)
    assert again.n_reused == 2
    assert again.manifest == rendered.manifest


def test_a_black_picture_keeps_its_file_and_its_reason(source, tmp_path, monkeypatch):
    decode = generation.sample_batches.__globals__["decode_latents"]
    monkeypatch.setitem(
        generation.sample_batches.__globals__, "decode_latents", lambda vae, latents: decode(vae, latents) * 0 - 1
    )
    rendered = _render(source, tmp_path, [RED], steps=(0,), seeds_per_prompt=1)
    (sample,) = rendered.manifest.samples
    assert sample.invalid_reason == "black"
    with Image.open(tmp_path / "samples" / sample.file) as image:
        assert np.asarray(image).mean() < BLACK_BELOW_MEAN
