"""Optional scorers of transformers: loaded as saved, named by what they are, refused when missing or altered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from loupe.atomic_io import sha256_file
from loupe.errors import PipelineError
from loupe.metrics.transformer_models import find_transformer, transformer_info
from loupe.metrics.transformer_networks import load_picture_model, load_preference_model
from tests.unit.metrics.small_run import toy_images
from tests.unit.metrics.toy_transformers import (
    as_cached,
    change_weights,
    write_toy_dinov2,
    write_toy_preference,
    write_toy_rater,
)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dinov2(tmp_path_factory.mktemp("models") / "toy")


def test_dinov2_features_are_the_class_token_of_the_saved_model(dinov2: Path) -> None:
    from transformers import AutoImageProcessor, Dinov2Model

    batch = toy_images(3)
    found = load_picture_model(find_transformer("dinov2", str(dinov2)), "cpu")(batch)["features"]
    model, processor = Dinov2Model.from_pretrained(dinov2).eval(), AutoImageProcessor.from_pretrained(dinov2)
    with torch.no_grad():
        expected = model(**processor(images=batch, return_tensors="pt")).pooler_output
    assert found.shape == (3, 24)
    assert np.allclose(found, expected, atol=1e-5)


def test_features_do_not_depend_on_the_batch(dinov2: Path) -> None:
    extract = load_picture_model(find_transformer("dinov2", str(dinov2)), "cpu")
    batch = toy_images(4)
    alone = [extract([image])["features"][0] for image in batch[::-1]][::-1]
    assert np.allclose(extract(batch)["features"], alone, atol=1e-5)


def test_a_model_of_ones_own_bears_its_hash_and_never_a_standard_name(dinov2: Path) -> None:
    info = transformer_info(find_transformer("dinov2", str(dinov2)))
    sha256 = sha256_file(dinov2 / "model.safetensors")
    assert (info.name, info.kind, info.role) == (f"toy@{sha256[:8]}", "custom", "features")
    assert info.resize == "as its preprocessor_config.json says (height: 28, width: 28)"


def test_a_cached_model_has_its_own_name_until_a_byte_of_it_changes(dinov2: Path, no_weights: Path) -> None:
    snapshot = as_cached(dinov2, no_weights / "hub", "facebook/dinov2-base")
    source = find_transformer("dinov2", "")
    assert (transformer_info(source).name, transformer_info(source).kind) == ("dinov2-base", "standard")
    change_weights((snapshot / "model.safetensors").resolve())
    with pytest.raises(PipelineError, match="is not what was downloaded"):
        transformer_info(source)


def test_every_file_that_a_tokenizer_may_read_is_a_setting_of_the_model(dinov2: Path, tmp_path: Path) -> None:
    own = {"config.json", "preprocessor_config.json"}
    files = {*own, "tokenizer.json", "special_tokens_map.json", "added_tokens.json"}
    for name in files:
        (tmp_path / name).touch()
    source = find_transformer("dinov2", str(dinov2))
    with_texts = replace(source, role="preference", folder=tmp_path)
    assert {file.name for file in with_texts.settings_files} == files
    assert {file.name for file in replace(source, folder=tmp_path).settings_files} == own


def test_a_cache_without_hashes_proves_nothing(dinov2: Path, no_weights: Path) -> None:
    snapshot = as_cached(dinov2, no_weights / "hub", "facebook/dinov2-base")
    weights = snapshot / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content)
    assert transformer_info(find_transformer("dinov2", "")).kind == "custom"


@pytest.mark.parametrize(
    ("kind", "place", "expected"),
    [
        ("dinov2", "", "hf download facebook/dinov2-base"),
        ("dinov2", "facebook/dinov2-large", "hf download facebook/dinov2-large"),
        ("preference", "", "not which; give a Hub id or a folder, e.g. preference:yuvalkirstain/PickScore_v1"),
        ("aesthetic", "../no/such", "neither a folder nor in the cache"),
    ],
)
def test_what_is_missing_says_how_to_get_it(no_weights: Path, kind: str, place: str, expected: str) -> None:
    with pytest.raises(PipelineError) as caught:
        find_transformer(kind, place)
    assert expected in str(caught.value)


def test_a_model_of_another_kind_and_one_without_its_processor_are_refused(dinov2: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="has not model_type clip"):
        find_transformer("preference", str(dinov2))
    with pytest.raises(PipelineError, match="has not a class named aesthetic"):
        find_transformer("aesthetic", str(dinov2))
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(PipelineError, match=r"lacks model\.safetensors, preprocessor_config\.json"):
        find_transformer("dinov2", str(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(("content", "said"), [('{"model_type": "dino', "cannot be read"), ("[]", "holds no settings")])
def test_settings_that_are_not_whole_are_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    folder = write_toy_dinov2(tmp_path / "toy")
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(PipelineError, match=rf"{name} {said}.* Get the model anew"):
        transformer_info(find_transformer("dinov2", str(folder)))


@pytest.mark.parametrize(
    ("kind", "write", "load"),
    [
        ("dinov2", write_toy_dinov2, load_picture_model),
        ("aesthetic", write_toy_rater, load_picture_model),
        ("preference", write_toy_preference, load_preference_model),
    ],
)
def test_random_weights_and_weights_that_are_not_whole_are_refused(tmp_path: Path, kind, write, load) -> None:
    random = find_transformer(kind, str(write(tmp_path / "random", trained=False)))
    with pytest.raises(PipelineError, match="never trained"):
        load(random, "cpu")
    partial = write(tmp_path / "partial") / "model.safetensors"
    state = load_file(partial)
    del state[next(name for name in sorted(state) if name.endswith("weight") and "norm" in name)]
    save_file(state, partial, metadata={"format": "pt"})
    with pytest.raises(PipelineError, match="lacks 1 weights of its network"):
        load(find_transformer(kind, str(partial.parent)), "cpu")


def test_an_aesthetic_rating_is_the_probability_of_that_class(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, ViTForImageClassification

    folder, batch = write_toy_rater(tmp_path / "rater"), toy_images(3)
    found = load_picture_model(find_transformer("aesthetic", str(folder)), "cpu")(batch)["rating"]
    model, processor = (
        ViTForImageClassification.from_pretrained(folder).eval(),
        AutoImageProcessor.from_pretrained(folder),
    )
    with torch.no_grad():
        expected = model(**processor(images=batch, return_tensors="pt")).logits.softmax(1)[:, 1]
    assert np.allclose(found, expected, atol=1e-5)
    assert ((found > 0) & (found < 1)).all()


def test_a_preference_model_gives_the_cosines_of_transformers_own(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    folder, batch, words = write_toy_preference(tmp_path / "toy"), toy_images(2), ["photo of Red shoes", "Blue shoes"]
    network = load_preference_model(find_transformer("preference", str(folder)), "cpu")
    image, text = network.images(batch)["image"], network.texts(words)["text"]
    model = CLIPModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(words, padding=True, return_tensors="pt")
    pixels = AutoImageProcessor.from_pretrained(folder)(images=batch, return_tensors="pt")
    with torch.no_grad():
        expected = model(**tokens, **pixels)
    assert np.allclose(image / np.linalg.norm(image, axis=1, keepdims=True), expected.image_embeds, atol=1e-5)
    assert np.allclose(text / np.linalg.norm(text, axis=1, keepdims=True), expected.text_embeds, atol=1e-5)
    lengths = network.texts(["Red shoes", "Red " * 20])
    assert lengths["n_tokens"].tolist() == [4, 22]
    assert lengths["context_length"].tolist() == [8, 8]
