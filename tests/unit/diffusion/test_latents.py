import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from loupe.atomic_io import read_record, read_records
from loupe.diffusion import latents
from loupe.diffusion.base_model import base_model_info
from loupe.diffusion.device_memory import DeviceFull, Portions
from loupe.diffusion.latent_files import read_examples
from loupe.diffusion.model_loading import load_text_encoder, load_tokenizer, load_vae
from loupe.diffusion.text import TEXTS_AT_ONCE_GPU, embed_all, embed_tokens, full_parts
from loupe.errors import PipelineError
from loupe.params import load_params
from loupe.paths import ProjectPaths
from loupe.records import CaptionRecord, LatentsManifest
from loupe.workstore import WorkStore
from stages.encode import encode
from tests.run_parts import edit_params
from tests.tiny_models import build_tiny_base_model
from tests.unit.diffusion.tiny_project import write_tiny_project


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("LOUPE_DEVICE", "cpu")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def project(tmp_path, tiny_base_model):
    return ProjectPaths(write_tiny_project(tmp_path / "project", base=tiny_base_model))


def run(project, capsys=None):
    encode(load_params(project.root / "params.yaml"), project, WorkStore(project.work))
    return read_record(project.latents / "manifest.json", LatentsManifest, made_by="encode")


def test_a_damaged_entry_never_enters_training(project, capsys):
    """A flipped bit leaves a readable file; all damaged ones are named in one run and computed anew."""
    manifest = run(project)
    store = project.work
    before = {path.name: path.read_bytes() for path in store.rglob("*.safetensors")}
    posteriors, texts = sorted(store.glob("posteriors/*/*")), sorted(store.glob("text_embeddings/*/*"))
    for path, damage in ((posteriors[0], flip_last_byte), (posteriors[1], cut_short), (texts[0], flip_last_byte)):
        path.write_bytes(damage(path.read_bytes()))
    capsys.readouterr()

    again = run(project)

    said = capsys.readouterr().out
    assert said.count("a stored entry of posteriors is damaged") == 2
    assert said.count("a stored entry of text_embeddings is damaged (its contents have changed)") == 1
    assert "encode: computed=3" in said
    assert again == manifest
    assert {path.name: path.read_bytes() for path in store.rglob("*.safetensors")} == before


def test_an_entry_under_the_name_of_another_and_a_folder_in_its_place_are_computed_anew(project, capsys):
    """A whole file is damage too where it is another picture's: it would pair a photo with the wrong latent."""
    manifest = run(project)
    mine, other, place = sorted((project.work / "posteriors").glob("*/*"))[:3]
    before = mine.read_bytes()
    mine.write_bytes(other.read_bytes())
    place.unlink()
    place.mkdir()
    capsys.readouterr()

    again = run(project)

    said = capsys.readouterr().out
    assert "a stored entry of posteriors is damaged (it is that of another entry)" in said
    assert "encode: computed=2" in said
    assert again == manifest
    assert mine.read_bytes() == before
    assert place.is_file()


def flip_last_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def cut_short(content: bytes) -> bytes:
    return content[: len(content) // 2]


def records_of(project, split):
    return read_records(project.dataset / split / "captions.jsonl", CaptionRecord, made_by="prepare")


def test_posteriors_and_captions_belong_to_their_image(project, tiny_base_model):
    manifest = run(project)
    vae = load_vae(tiny_base_model, device="cpu", dtype=torch.float32)
    text_encoder = load_text_encoder(tiny_base_model, device="cpu", dtype=torch.float32)
    tokenizer = load_tokenizer(tiny_base_model)

    for split in ("train", "val"):
        examples = read_examples(project.latents, split, base=manifest.base_model)
        records = records_of(project, split)
        assert examples.image_ids == tuple(record.image_id for record in records)
        for index, record in enumerate(records):
            pixels = torch.from_numpy(np.array(Image.open(project.dataset / record.file))).permute(2, 0, 1)
            with torch.no_grad():
                posterior = vae.encode(pixels[None].float() / 127.5 - 1).latent_dist
            assert torch.allclose(examples.mean[index], posterior.mean[0], atol=1e-5)
            assert torch.allclose(examples.std[index], posterior.std[0], atol=1e-5)
            expected = embed_all([record.caption], tokenizer=tokenizer, text_encoder=text_encoder)[0]
            assert torch.equal(examples.embeddings[examples.caption_index[index]], expected)
    empty = embed_all([""], tokenizer=tokenizer, text_encoder=text_encoder)[0]
    assert torch.equal(load_file(project.latents / "text.safetensors")["embeddings"][0], empty)


def test_every_caption_is_kept_as_the_tokens_that_its_vectors_are_of(project, tiny_base_model):
    manifest = run(project)
    text_encoder = load_text_encoder(tiny_base_model, device="cpu", dtype=torch.float32)
    for split in ("train", "val"):
        examples = read_examples(project.latents, split, base=manifest.base_model, with_tokens=True)
        assert read_examples(project.latents, split, base=manifest.base_model).token_ids is None
        assert examples.token_ids.shape == examples.embeddings.shape[:2]
        for ids, vectors in zip(examples.token_ids, examples.embeddings, strict=True):
            assert torch.equal(embed_tokens(ids[None], text_encoder=text_encoder)[0], vectors)


@pytest.mark.parametrize("count", [1, TEXTS_AT_ONCE_GPU, TEXTS_AT_ONCE_GPU + 1])
def test_a_gpu_always_takes_the_same_number_of_texts_together(count):
    ids = torch.arange(count * 3).reshape(count, 3)
    parts = full_parts(ids)
    assert {part.shape for part in parts} == {(TEXTS_AT_ONCE_GPU, 3)}
    assert torch.equal(torch.cat(parts)[:count], ids)


def test_tokens_that_are_missing_are_refused_only_where_they_are_wanted(project):
    manifest = run(project)
    (project.latents / "tokens.safetensors").unlink()
    read_examples(project.latents, "train", base=manifest.base_model)
    with pytest.raises(PipelineError, match=r"tokens\.safetensors is missing or has changed .* dvc repro --force enc"):
        read_examples(project.latents, "train", base=manifest.base_model, with_tokens=True)


def test_encoding_again_computes_only_what_is_new_and_gives_the_same_bytes(project, capsys):
    first = run(project)
    assert "encode: computed=11 reused=2" in capsys.readouterr().out  # val's two images equal two of train
    second = run(project)

    assert "encode: computed=0 reused=13" in capsys.readouterr().out
    assert second == first


def test_one_more_image_costs_one_more_image(project, tmp_path, tiny_base_model, capsys):
    run(project)
    larger = ProjectPaths(write_tiny_project(tmp_path / "larger", base=tiny_base_model, n_train=7))
    shutil.copytree(project.work, larger.work)
    capsys.readouterr()

    run(larger)

    assert "encode: computed=1 reused=13" in capsys.readouterr().out


def test_a_gpu_whose_memory_is_full_encodes_fewer_photos_at_once_and_all_come(
    project, tmp_path, tiny_base_model, monkeypatch
):
    """The way of a GPU, on the CPU: its memory is made up to hold three photos."""
    run(project)
    one_by_one = {path.name: load_file(path) for path in project.work.glob("posteriors/*/*")}
    encode_pixels, sizes = latents.encode_pixels, []

    def limited(vae, pixels):
        sizes.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return encode_pixels(vae, pixels)

    monkeypatch.setattr(latents, "encode_pixels", limited)
    monkeypatch.setattr(latents, "Portions", lambda at_once, _device, advice: Portions(at_once, "cuda", advice))
    monkeypatch.setattr(latents, "_encode_each", latents._encode_together)
    again = ProjectPaths(shutil.copytree(project.root, tmp_path / "again", ignore=shutil.ignore_patterns(".work")))
    run(again)

    together = {path.name: load_file(path) for path in again.work.glob("posteriors/*/*")}
    assert sizes == [6, 4, 2, 2, 2]
    assert together.keys() == one_by_one.keys()
    for name, posterior in together.items():
        assert all(torch.allclose(posterior[key], one_by_one[name][key], atol=1e-5) for key in ("mean", "std"))


def test_a_memory_that_holds_no_photo_is_a_sentence_with_what_to_do(project, monkeypatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(latents, "encode_pixels", full)
    with pytest.raises(DeviceFull, match=r"The memory of cpu is full\. Close other programs"):
        run(project)


def test_another_base_model_encodes_anew(project, tmp_path, capsys):
    run(project)
    other_base = build_tiny_base_model(tmp_path / "other", seed=1)
    write_tiny_project(project.root, base=other_base)
    capsys.readouterr()

    manifest = run(project)

    assert "encode: computed=11 reused=2" in capsys.readouterr().out
    assert manifest.base_model.sha256 == base_model_info(other_base, name="x", revision=None).sha256


def test_whatever_decides_what_is_encoded_changes_its_key(monkeypatch):
    given = {"base_sha256": "b", "machine": "cpu", "resolution_px": 64}

    def found(image="i", caption="c", mirrored=False, **changes):
        keys = latents.encode_keys(**{**given, **changes})
        record = CaptionRecord(
            image_id="a", split="train", file="a.png", caption="c", sha256=image, source_width_px=64,
            source_height_px=64, attributes={},
        )  # fmt: skip
        return keys.posterior(latents.PhotoView(record, mirrored)), keys.embedding(caption)

    posterior, embedding = found()
    assert found(image="j")[0] != posterior
    assert found(mirrored=True)[0] != posterior
    assert found(caption="d")[1] != embedding
    assert found(resolution_px=32)[0] != posterior
    others = [found(base_sha256="x"), found(machine="gpu")]
    for name in ("library_versions", "source_fingerprint"):
        with monkeypatch.context() as patch:
            patch.setattr(latents, name, lambda *_: "another")
            others.append(found())
    assert len({posterior, embedding, *(key for both in others for key in both)}) == 2 + 2 * 4


def flip_at_random(project):
    edit_params(project.root, "train", "random_flip", True)


def test_with_random_flips_each_training_photo_is_encoded_mirrored_too(project, tiny_base_model, capsys):
    without = run(project)
    flip_at_random(project)
    capsys.readouterr()

    manifest = run(project)

    assert "encode: computed=6 reused=13" in capsys.readouterr().out
    vae = load_vae(tiny_base_model, device="cpu", dtype=torch.float32)
    examples = read_examples(project.latents, "train", base=manifest.base_model, with_mirrored=True)
    for index, record in enumerate(records_of(project, "train")):
        pixels = torch.from_numpy(np.array(Image.open(project.dataset / record.file))[:, ::-1].copy()).permute(2, 0, 1)
        with torch.no_grad():
            posterior = vae.encode(pixels[None].float() / 127.5 - 1).latent_dist
        assert torch.allclose(examples.mirrored.mean[index], posterior.mean[0], atol=1e-5)
        assert torch.allclose(examples.mirrored.std[index], posterior.std[0], atol=1e-5)
        assert not torch.allclose(examples.mirrored.mean[index], examples.mean[index].flip(-1), atol=1e-3)
    assert manifest.files["val.safetensors"] == without.files["val.safetensors"]


def test_mirrored_photos_count_only_where_they_are_asked_for(project):
    base = run(project).base_model
    with pytest.raises(PipelineError, match=r"without mirrored photos \(train\.random_flip\)\. Run: dvc repro encode"):
        read_examples(project.latents, "train", base=base, with_mirrored=True)
    without = read_examples(project.latents, "train", base=base).sha256()
    flip_at_random(project)
    run(project)

    asked, not_asked = (read_examples(project.latents, "train", base=base, with_mirrored=w) for w in (True, False))

    assert not_asked.mirrored is None
    assert not_asked.sha256() == without != asked.sha256()


def test_the_test_split_is_never_read(project):
    shutil.rmtree(project.dataset / "test")

    manifest = run(project)

    assert set(manifest.image_ids) == {"train", "val"}


def test_an_image_that_has_changed_is_refused(project):
    record = records_of(project, "train")[2]
    Image.new("RGB", (64, 64)).save(project.dataset / record.file)

    with pytest.raises(PipelineError, match=rf"{record.image_id}.png has changed"):
        run(project)
    assert not (project.latents / "manifest.json").exists()


def test_posteriors_that_are_not_finite_name_every_image_and_are_not_stored(project, tiny_base_model):
    views = latents.views(records_of(project, "train"), mirrored_too=True)
    keys = latents.encode_keys(base_sha256="b", machine="cpu", resolution_px=64)
    store = WorkStore(project.work)
    vae = load_vae(tiny_base_model, device="cpu", dtype=torch.float32)
    vae.quant_conv.bias[0] = math.nan

    with pytest.raises(PipelineError, match="6 images: train0, train1, train2, train3, train4, train5"):
        list(latents.encode_images(views, vae=vae, dataset=project.dataset, keys=keys, store=store))

    assert latents.new_images(views, keys=keys, store=store) == views


def test_latents_of_another_base_or_changed_by_hand_are_refused(project):
    base = run(project).base_model
    with pytest.raises(PipelineError, match="Run: dvc repro encode"):
        read_examples(project.latents, "train", base=base.model_copy(update={"sha256": "0" * 64}))

    file = project.latents / "text.safetensors"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-1] + b"\0" if content[-1:] != b"\0" else content[:-1] + b"\1")
    with pytest.raises(PipelineError, match=r"text\.safetensors is missing or has changed"):
        read_examples(project.latents, "train", base=base)


def test_a_change_in_val_leaves_what_training_sees(project, tmp_path, tiny_base_model):
    other = ProjectPaths(write_tiny_project(tmp_path / "other", base=tiny_base_model, n_val=1))
    sha256 = [read_examples(p.latents, "train", base=run(p).base_model).sha256() for p in (project, other)]

    assert sha256[0] == sha256[1]


def test_long_captions_are_cut_at_the_encoders_length(tiny_base_model):
    text_encoder = load_text_encoder(tiny_base_model, device="cpu", dtype=torch.float32)
    options = {"tokenizer": load_tokenizer(tiny_base_model), "text_encoder": text_encoder}

    assert embed_all(["a photo " * 100], **options)[0].shape == (77, 16)
    assert torch.equal(embed_all(["red " * 100], **options)[0], embed_all(["red " * 75], **options)[0])
