"""Extractors: missing, altered or untrained ones are refused at once; what decides features decides the store's key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from loupe.errors import PipelineError
from loupe.metrics import inception
from loupe.metrics.clip import clip_info, find_clip, find_demo_clip, load_clip
from loupe.metrics.demo_classifier import demo_classifier_info, load_demo_classifier
from loupe.metrics.extractors import Machine, resolve_extractors
from tests.unit.metrics.small_run import (
    CLIP_CONFIG,
    COLOURS,
    SIZE_PX,
    moved,
    picture,
    write_toy_classifier,
    write_toy_clip,
)

CPU = Machine(device="cpu", identity="cpu test")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_toy_classifier(folder / "classifier")
    write_toy_clip(folder / "clip")
    return folder


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def images(count: int = 5) -> list[np.ndarray]:
    colours = list(COLOURS.values())
    return [np.asarray(picture(colours[i % 3], 255, i)) for i in range(count)]


# --- the standard Inception ------------------------------------------------------------------------------------------


def test_missing_inception_says_where_to_put_it(no_weights: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        inception.find_inception("standard")
    message = str(caught.value)
    assert str(no_weights / "torch" / "hub" / "checkpoints" / inception.FILE_NAME) in message
    assert inception.URL in message
    assert "fd_demo" in message


def test_a_wrong_path_is_named() -> None:
    with pytest.raises(PipelineError, match=r"no/such\.pth is not there"):
        inception.find_inception("no/such.pth")


def test_an_altered_network_is_refused_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *_a, **_k: pytest.fail("the file was opened before its hash was checked"))
    path = tmp_path / inception.FILE_NAME
    path.write_bytes(b"random weights")
    for use in (inception.inception_info, lambda p: inception.load_inception(p, "cpu")):
        with pytest.raises(PipelineError, match=f"expected {inception.SHA256}"):
            use(path)


def test_the_hash_is_the_one_that_the_file_name_carries() -> None:
    assert inception.SHA256.startswith(inception.FILE_NAME.removesuffix(".pth").rpartition("-")[2])


def test_the_known_network_yields_pool_features_and_unbiased_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real weights cannot be had here; a file of the same shape stands in for them under its own hash."""
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    monkeypatch.setattr(fidelity, "load_state_dict_from_url", lambda *_a, **_k: {})
    monkeypatch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *_a, **_k: None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = fidelity.FeatureExtractorInceptionV3("reference", ["2048", "logits_unbiased"])
    monkeypatch.undo()
    path = tmp_path / inception.FILE_NAME
    torch.save(reference.state_dict(), path)
    monkeypatch.setattr(inception, "SHA256", inception.hashlib.sha256(path.read_bytes()).hexdigest())
    batch = images(2)
    found = inception.load_inception(path, "cpu")(batch)
    expected = reference(torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2))
    assert found["features"].shape == (2, 2048)
    assert found["logits"].shape == (2, 1008)
    assert np.allclose(found["features"], expected[0], atol=1e-6)
    assert np.allclose(found["logits"], expected[1], atol=1e-6)


# --- the demo's scorers ----------------------------------------------------------------------------------------------


def test_demo_classifier_does_not_depend_on_batch_or_order(demo: Path) -> None:
    extract = load_demo_classifier(demo / "classifier", "cpu")
    batch = images(6)
    together = extract(batch)
    alone = [extract([image])["features"][0] for image in batch[::-1]][::-1]
    assert np.allclose(together["features"], alone, atol=1e-5)
    assert together["logits"].shape == (6, 2 * len(COLOURS))
    assert np.allclose(np.exp(together["logits"]).sum(axis=1), 1, atol=1e-5), "joint log-probabilities are normalised"
    assert together["colour_logits"].shape == (6, len(COLOURS))


def test_uint8_pixels_are_scaled_once(demo: Path) -> None:
    """A second division by 255 would make all pictures nearly black, without any error."""
    from loupe.metrics.classifier import load_classifier

    batch = images(2)
    direct = load_classifier(demo / "classifier")(torch.from_numpy(np.stack(batch) / 255).permute(0, 3, 1, 2).float())
    assert np.allclose(load_demo_classifier(demo / "classifier", "cpu")(batch)["features"], direct.features, atol=1e-3)


def test_an_untrained_classifier_is_refused(tmp_path: Path) -> None:
    write_toy_classifier(tmp_path, trained=False)
    with pytest.raises(PipelineError, match="never trained"):
        load_demo_classifier(tmp_path, "cpu")


def test_an_untrained_clip_is_refused(tmp_path: Path) -> None:
    write_toy_clip(tmp_path, trained=False)
    with pytest.raises(PipelineError, match="never trained"):
        load_clip(find_demo_clip(tmp_path), "cpu")


def test_clip_features_are_those_of_open_clip(demo: Path) -> None:
    import open_clip
    from PIL import Image

    batch, texts = images(3), ["a red shoe", "a blue shoe"]
    network = load_clip(find_demo_clip(demo / "clip"), "cpu")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{demo / 'clip'}")
    model.eval()
    tokenizer = open_clip.SimpleTokenizer(bpe_path=str(demo / "clip" / "bpe.txt.gz"))
    with torch.no_grad():
        expected = model.encode_image(torch.stack([preprocess(Image.fromarray(image)) for image in batch]))
        expected_text = model.encode_text(tokenizer(texts))
    assert np.allclose(network.images(batch)["image"], expected, atol=1e-5)
    assert np.allclose(network.texts(texts)["text"], expected_text, atol=1e-5)


def test_a_text_that_the_tokenizer_cuts_can_be_told(demo: Path) -> None:
    found = load_clip(find_demo_clip(demo / "clip"), "cpu").texts(["ab", "long " * 60])
    assert found["n_tokens"].tolist() == [4, 242]
    assert (found["n_tokens"] > found["context_length"]).tolist() == [False, True]


def test_everything_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        resolve_extractors(inception="demo", clip="demo", demo_folder=tmp_path, machine=CPU)
    message = str(caught.value)
    assert "2 problems" in message
    assert "evaluate.inception is 'demo'" in message
    assert "evaluate.clip is 'demo'" in message
    assert "make demo-kit" in message


def test_the_stores_kind_follows_weights_settings_and_machine(demo: Path, tmp_path: Path) -> None:
    def kinds(folder: Path, machine: Machine = CPU) -> tuple[str, str]:
        found = resolve_extractors(inception="demo", clip="demo", demo_folder=folder, machine=machine)
        return found.inception.kind, found.clip.kind

    copy = tmp_path / "demo"
    shutil.copytree(demo, copy)
    before = kinds(demo)
    assert kinds(copy) == before
    assert set(kinds(demo, Machine("cuda", "cuda H"))).isdisjoint(before)
    (copy / "clip" / "bpe.txt.gz").write_bytes(b"other merges")
    config = copy / "classifier" / "config.json"
    config.write_text(config.read_text() + " ")
    assert set(kinds(copy)).isdisjoint(before)


def test_a_network_loads_once_per_process(demo: Path) -> None:
    found = resolve_extractors(inception="demo", clip="demo", demo_folder=demo, machine=CPU)
    assert found.inception.load() is found.inception.load()
    assert found.inception.colours == tuple(COLOURS)


def test_reference_of_other_extractors_is_refused(demo: Path) -> None:
    found = resolve_extractors(inception="demo", clip="demo", demo_folder=demo, machine=CPU)
    found.require_same(found.infos)
    other = found.infos[0].model_copy(update={"sha256": "f" * 64})
    with pytest.raises(PipelineError, match="dvc repro reference"):
        found.require_same((other, found.infos[1]))


def test_info_of_the_demo_classifier_names_what_it_is(demo: Path) -> None:
    info = demo_classifier_info(demo / "classifier")
    assert (info.name, info.role, info.kind) == ("demo-classifier", "inception", "domain_trained")


# --- open_clip by name -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B-32-quickgelu/openai", "not in the Hugging Face cache"),
        ("ViT-B-32-quickgelu/opnai", "no pretrained tag 'opnai'. Known tags: "),
        ("ViT-B-33/openai", "Near architectures: "),
        ("ViT-B-32", "expected demo or <open_clip architecture>/<pretrained tag"),
        ("ViT-B-32/no/such.safetensors", "is not there"),
        ("ViT-B-32-quickgelu/laion2b_e16", "has no pretrained tag"),
    ],
)
def test_a_clip_that_cannot_be_had_says_what_to_do(no_weights: Path, name: str, expected: str) -> None:
    with pytest.raises(PipelineError) as caught:
        find_clip(name)
    assert expected in str(caught.value)


def test_openai_weights_need_the_quickgelu_architecture(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="Use ViT-B-32-quickgelu/"):
        find_clip("ViT-B-32/openai")
    local = tmp_path / "clip-openai.safetensors"
    local.write_bytes(b"")
    with pytest.raises(PipelineError, match="QuickGELU"):
        find_clip(f"ViT-B-32/{local}")


def test_a_local_file_of_other_shapes_is_refused(tmp_path: Path, demo: Path) -> None:
    local = tmp_path / "other.safetensors"
    shutil.copy(demo / "clip" / "open_clip_model.safetensors", local)
    source = find_clip(f"ViT-B-32/{local}")
    assert source.resize == "Pillow bicubic to 224 px (shortest side, centre crop)"
    with pytest.raises(PipelineError, match="does not load"):
        load_clip(source, "cpu")


def test_an_architecture_with_local_weights_and_one_with_a_cached_tag_load_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A toy architecture of open_clip's, since no pretrained weights can be had here."""
    import open_clip

    config = {**CLIP_CONFIG["model_cfg"], "text_cfg": {**CLIP_CONFIG["model_cfg"]["text_cfg"], "vocab_size": 49408}}
    (tmp_path / "toy-arch.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "toy-arch.json")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = open_clip.create_model("toy-arch").state_dict()
    weights = tmp_path / "mine.safetensors"
    save_file(moved(state, 3), weights)
    tag = {"hf_hub": "toy/repository/", "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "interpolation": "bilinear"}
    monkeypatch.setattr("open_clip.get_pretrained_cfg", lambda *_: tag)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, _name: str(weights) if repo else None)

    local, tagged = find_clip(f"toy-arch/{weights}"), find_clip("toy-arch/mine_tag")
    assert (local.name, tagged.name) == ("toy-arch/mine", "toy-arch/mine_tag")
    assert clip_info(local).sha256 == clip_info(tagged).sha256
    assert clip_info(tagged).kind == "standard"
    assert tagged.resize == f"Pillow bilinear to {SIZE_PX} px (shortest side, centre crop)"
    networks = [load_clip(source, "cpu") for source in (local, tagged)]
    text_a, text_b = (network.texts(["red shoes"])["text"] for network in networks)
    assert np.array_equal(text_a, text_b)
    image_a, image_b = (network.images(images(2))["image"] for network in networks)
    assert image_a.shape == image_b.shape == (2, 16)
    assert not np.allclose(image_a, image_b), "the tag's own normalisation is used"


def test_resize_is_stated_in_words(demo: Path) -> None:
    assert find_demo_clip(demo / "clip").resize == f"Pillow bicubic to {SIZE_PX} px (squashed)"
