"""Every checkpoint is drawn and validated with the text encoder that was trained with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from loupe.diffusion import text_vectors
from loupe.diffusion.adapter import load_adapter
from loupe.diffusion.device import choose_device
from loupe.diffusion.generation import render_samples
from loupe.diffusion.model_loading import load_noise_scheduler, load_text_encoder, load_tokenizer, load_unet, load_vae
from loupe.diffusion.sample_plan import AdapterSource, plan_samples, verified_adapters
from loupe.diffusion.sampling import DrawingModel, PictureRequest, SamplingSettings, embed_texts, sample_pictures
from loupe.diffusion.text import embed_all, token_ids
from loupe.diffusion.text_vectors import TextEncoders, vectors_by_step, with_vectors_of
from loupe.diffusion.validation import make_validation_set, validation_losses
from loupe.diffusion.validation_files import Validation
from loupe.errors import PipelineError
from loupe.records import PromptRecord
from loupe.workstore import WorkStore
from tests.tiny_models import TINY_SIDE_PX
from tests.unit.diffusion.tiny_checkpoints import write_checkpoints
from tests.unit.diffusion.tiny_training import CPU, tiny_examples

SETTINGS = SamplingSettings(TINY_SIDE_PX, TINY_SIDE_PX, 3.0, 3, "")
RED = PromptRecord(prompt_id="red", text="a photo of red shoes", colour="Red")
BLUE = PromptRecord(prompt_id="blue", text="blue shoes", colour="Blue")
ON_CPU = {"device": "cpu", "dtype": torch.float32}


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setenv("LOUPE_DEVICE", "cpu")


@pytest.fixture(scope="module")
def source(tiny_base_model, tmp_path_factory) -> AdapterSource:
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"), tiny_base_model, (2, 4), with_text=True)


def _without_text(source: AdapterSource) -> AdapterSource:
    """The same checkpoints, as if their text encoders had never been trained."""
    infos = [info.model_copy(update={"text_encoder_sha256": None}) for info in source.checkpoints.checkpoints]
    return replace(source, checkpoints=source.checkpoints.model_copy(update={"checkpoints": tuple(infos)}))


def _render(source, root, *, steps=(0, 2, 4), prompts=(RED, BLUE)):
    return render_samples(
        source, steps=steps, prompts=prompts, seeds_per_prompt=1, purpose="generate", root_seed=42, settings=SETTINGS,
        batch_size=4, output=root / "samples", store=WorkStore(root / ".work"),
    )  # fmt: skip


def _vectors(source, text, step):
    text_encoder = load_text_encoder(source.base_folder, **ON_CPU)
    if step:
        load_adapter(text_encoder, source.text_adapter_folder(step))
    return embed_all([text], tokenizer=load_tokenizer(source.base_folder), text_encoder=text_encoder)[0]


def _expected_pixels(source, step, *, vectors_of):
    """RED's picture at a step, drawn here without any of the code that chooses the vectors."""
    unet = load_unet(source.base_folder, **ON_CPU)
    if step:
        load_adapter(unet, source.adapter_folder(step))
    model = DrawingModel(unet, load_vae(source.base_folder, **ON_CPU), load_noise_scheduler(source.base_folder), CPU)
    embeddings = {text: _vectors(source, text, vectors_of) for text in (RED.text, "")}
    (planned,) = plan_samples(
        source, steps=[step], prompts=[RED], seeds_per_prompt=1, purpose="generate", root_seed=42, settings=SETTINGS,
        policy=choose_device(), n_rows=8,
    )  # fmt: skip
    request = PictureRequest(RED.text, planned.seed)
    return next(sample_pictures(model, [request], embeddings=embeddings, settings=SETTINGS, batch_size=1)).pixels


@pytest.mark.parametrize("step", [0, 2, 4])
def test_each_checkpoint_is_drawn_with_its_own_text_vectors(source, tmp_path, step):
    """The negative prompt included; the base model keeps its own."""
    _render(source, tmp_path)
    drawn = np.array(Image.open(tmp_path / "samples" / "red-0" / f"{step}.png"))
    np.testing.assert_array_equal(drawn, _expected_pixels(source, step, vectors_of=step))
    others = [_expected_pixels(source, step, vectors_of=other) for other in {0, 2, 4} - {step}]
    assert all((drawn != other).any() for other in others)


def test_a_text_adapter_that_nobody_loads_changes_the_picture(source, tmp_path):
    """The trap: text-encoder weights that are lost on the way draw a plausible picture of another model."""
    _render(source, tmp_path / "whole", steps=[2], prompts=[RED])
    _render(_without_text(source), tmp_path / "lost", steps=[2], prompts=[RED])
    whole, lost = ((tmp_path / name / "samples" / "red-0" / "2.png").read_bytes() for name in ("whole", "lost"))
    assert whole != lost


def test_every_prompt_is_encoded_once_per_text_encoder(source, monkeypatch):
    encoded, loaded = [], []
    embed, load = text_vectors.embed_texts, text_vectors.load_text_encoder
    monkeypatch.setattr(
        text_vectors, "embed_texts", lambda texts, **k: encoded.append(list(texts)) or embed(texts, **k)
    )
    monkeypatch.setattr(text_vectors, "load_text_encoder", lambda *a, **k: loaded.append(a) or load(*a, **k))
    texts = ["", RED.text, RED.text, BLUE.text]
    vectors = vectors_by_step(source, {4: texts, 0: texts, 2: texts}, policy=CPU)
    assert encoded == [["", RED.text, BLUE.text]] * 3
    assert len(loaded) == 1
    for step in (0, 2, 4):
        assert torch.equal(vectors[step][RED.text], _vectors(source, RED.text, step))

    encoded.clear()
    shared = vectors_by_step(_without_text(source), {0: texts, 2: texts, 4: ["another"]}, policy=CPU)
    assert encoded == [["", RED.text, BLUE.text], ["another"]]
    assert torch.equal(shared[2][RED.text], _vectors(source, RED.text, 0))


def test_the_one_encoder_takes_any_adapter_after_any_other_and_none(source):
    encoders, tokenizer = TextEncoders(source.base_folder, policy=CPU), load_tokenizer(source.base_folder)
    for step in (2, 0, 4, 2, 0):
        text_encoder = encoders.of(source.text_adapter_folder(step))
        found = embed_texts([RED.text], tokenizer=tokenizer, text_encoder=text_encoder)[RED.text]
        assert torch.equal(found, _vectors(source, RED.text, step))


# --- keys and hashes -------------------------------------------------------------------------------------------------


def _keys(source):
    planned = plan_samples(
        source, steps=[0, 2], prompts=[RED], seeds_per_prompt=1, purpose="generate", root_seed=42, settings=SETTINGS,
        policy=choose_device(), n_rows=8,
    )  # fmt: skip
    return [item.key for item in planned]


def test_the_key_of_a_picture_holds_the_text_encoders_adapter(source):
    base, trained = _keys(source)
    other_base, without = _keys(_without_text(source))
    assert base == other_base
    assert trained != without


def test_a_checkpoint_whose_text_adapter_was_lost_or_changed_is_refused(tiny_base_model, tmp_path):
    source = write_checkpoints(tmp_path, tiny_base_model, (2, 4), with_text=True)
    (source.text_adapter_folder(2) / "adapter_model.safetensors").unlink()
    with (source.text_adapter_folder(4) / "adapter_model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(PipelineError) as caught:
        verified_adapters(source, [0, 2, 4])
    assert "step-000002: text_encoder/adapter_model.safetensors is not there" in str(caught.value)
    assert "step-000004: text_encoder/adapter_model.safetensors is not the file that was trained" in str(caught.value)


# --- validation ------------------------------------------------------------------------------------------------------


def _validation_data(source):
    tokenizer = load_tokenizer(source.base_folder)
    captions = ["", RED.text, BLUE.text]
    examples = replace(
        tiny_examples(3),
        caption_index=torch.tensor([2, 1, 2]),
        token_ids=torch.stack([token_ids(caption, tokenizer=tokenizer, length=77) for caption in captions]),
        embeddings=torch.stack([_vectors(source, caption, 0) for caption in captions]),
    )
    return make_validation_set(
        examples, alphas_cumprod=load_noise_scheduler(source.base_folder).alphas_cumprod, n_timesteps=2,
        prediction_type="epsilon", scaling_factor=0.18215, seed=0,
    )  # fmt: skip


def test_captions_keep_their_image_when_they_are_encoded_anew(source):
    data = _validation_data(source)
    text_encoder = TextEncoders(source.base_folder, policy=CPU).of(source.text_adapter_folder(4))
    examples = with_vectors_of(text_encoder, data.examples)
    assert examples.image_ids == data.examples.image_ids
    for index, caption in enumerate([BLUE.text, RED.text, BLUE.text]):
        assert torch.equal(examples.embeddings[examples.caption_index[index]], _vectors(source, caption, 4))


def test_the_validation_loss_is_that_of_the_checkpoints_own_text_encoder(source, tmp_path):
    data = _validation_data(source)
    validation = Validation(data, seed=0, policy=CPU, store=WorkStore(tmp_path / ".work"), metrics=tmp_path)
    validation.measure(source)
    for step in (0, 2, 4):
        unet = load_unet(source.base_folder, **ON_CPU)
        own = torch.stack([_vectors(source, caption, step) for caption in ("", RED.text, BLUE.text)])
        if step:
            load_adapter(unet, source.adapter_folder(step))
            wrong = validation_losses(unet, data, policy=CPU, what="with the base model's vectors")
            assert not torch.equal(validation.losses[step], wrong)
        right = replace(data, examples=replace(data.examples, embeddings=own))
        expected = validation_losses(unet, right, policy=CPU, what="with its own vectors")
        assert torch.equal(validation.losses[step], expected)

    without = Validation(data, seed=0, policy=CPU, store=WorkStore(tmp_path / ".work"), metrics=tmp_path)
    without.measure(_without_text(source))  # other losses, so they must not have been found under the same key
    assert not torch.equal(without.losses[2], validation.losses[2])
    assert torch.equal(without.losses[0], validation.losses[0])
