"""open_clip models by name: what cannot be had says so, what was altered is refused, what is one's own is renamed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from loupe.atomic_io import sha256_file
from loupe.errors import PipelineError
from loupe.metrics.clip import clip_info, find_clip, find_demo_clip, load_clip
from loupe.metrics.extractor_keys import Machine
from loupe.metrics.extractors import resolve_extractors
from tests.unit.metrics.small_run import CLIP_CONFIG, SIZE_PX, moved, toy_images


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B-32-quickgelu/openai", "not in the Hugging Face cache"),
        ("ViT-B-32-quickgelu/opnai", "no pretrained tag 'opnai'. Known tags: "),
        ("ViT-B-33/openai", "Near architectures: "),
        ("ViT-B-32", "expected <open_clip architecture>/<pretrained tag"),
        ("ViT-B-32/no/such.safetensors", "is not there"),
        ("ViT-B-32-quickgelu/laion2b_e16", "has no pretrained tag"),
    ],
)
def test_a_clip_that_cannot_be_had_says_what_to_do(no_weights: Path, name: str, expected: str) -> None:
    with pytest.raises(PipelineError) as caught:
        find_clip(name)
    assert expected in str(caught.value)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"")
    return path


def test_openai_weights_need_the_quickgelu_architecture(local: Path) -> None:
    for entry in ("ViT-B-32/openai", f"ViT-B-32/{local}@openai", f"RN50/{local}"):
        architecture = entry.partition("/")[0]
        with pytest.raises(PipelineError, match=f"Use {architecture}-quickgelu/"):
            find_clip(entry)


def test_a_file_takes_the_preprocessing_that_all_tags_of_its_architecture_have(local: Path) -> None:
    siglip = find_clip(f"ViT-B-16-SigLIP/{local}")
    assert siglip.preprocess == {
        "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic", "resize_mode": "squash",
    }  # fmt: skip
    assert siglip.resize == "Pillow bicubic to 224 px (squashed), normalised as for webli"
    openai = find_clip(f"ViT-B-32-quickgelu/{local}")
    assert openai.preprocess["mean"] == (0.48145466, 0.4578275, 0.40821073)
    assert openai.resize.startswith("Pillow bicubic to 224 px (shortest side, centre crop), normalised as for ")
    assert find_clip(f"ViT-M-32/{local}").preprocess == {}, "no tag knows it: open_clip's defaults"


@pytest.mark.parametrize(
    ("architecture", "advice"),
    [
        ("ViT-B-32", r"ViT-B-32-quickgelu/\.$"),
        ("ViT-L-14", r"ViT-L-14-quickgelu/\.$"),
        ("ViT-H-14-quickgelu", r"\(resize_mode shortest: metaclip_fullcc; resize_mode squash: dfn5b\)"),
    ],
)
def test_a_file_whose_tags_differ_must_say_which(local: Path, architecture: str, advice: str) -> None:
    with pytest.raises(PipelineError, match=advice) as caught:
        find_clip(f"{architecture}/{local}")
    example = re.search(rf"e\.g\. ({re.escape(architecture)}/\S+@\S+)\.", str(caught.value))
    assert find_clip(example[1]).weights == local, "the entry of the advice is one that works"


def test_a_file_takes_the_preprocessing_of_the_tag_that_its_entry_names(local: Path) -> None:
    one, other = (find_clip(f"ViT-L-14/{local}@{tag}") for tag in ("laion2b_s32b_b82k", "datacomp_xl_s13b_b90k"))
    assert (one.preprocess["mean"], other.preprocess["mean"][0]) == ((0.5, 0.5, 0.5), 0.48145466)
    assert one.name == other.name == "ViT-L-14/mine"
    assert find_clip(f"ViT-H-14-quickgelu/{local}@dfn5b").preprocess["resize_mode"] == "squash"
    with pytest.raises(PipelineError, match=r"has no pretrained tag 'opnai'\. Known tags: openai"):
        find_clip(f"ViT-B-32/{local}@opnai")


def test_features_by_another_preprocessing_are_kept_apart(local: Path, demo: Path) -> None:
    """The two tags resize alike and differ in mean and std alone."""
    kinds = set()
    for tag in ("laion2b_s32b_b82k", "datacomp_xl_s13b_b90k"):
        found = resolve_extractors(
            ("demo", f"ViT-L-14/{local}@{tag}"), demo_folder=demo, machine=Machine("cpu", "test")
        )
        kinds.add(found.members[1].key.kind)
    assert len(kinds) == 2


def test_where_an_architecture_has_no_twin_its_own_activation_is_right(local: Path) -> None:
    """roberta-ViT-B-32 has QuickGELU, and its tag says nothing of it."""
    assert find_clip(f"roberta-ViT-B-32/{local}@laion2b_s12b_b32k").preprocess["interpolation"] == "bicubic"
    assert find_clip(f"roberta-ViT-B-32/{local}").preprocess["interpolation"] == "bicubic"


def test_a_local_file_of_other_shapes_is_refused(tmp_path: Path, demo: Path) -> None:
    local = tmp_path / "other.safetensors"
    shutil.copy(demo / "clip" / "open_clip_model.safetensors", local)
    source = find_clip(f"ViT-B-32/{local}@laion2b_s34b_b79k")
    assert source.resize == "Pillow bicubic to 224 px (shortest side, centre crop), normalised as for laion2b_s34b_b79k"
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
    (tmp_path / "blobs").mkdir()
    blob = tmp_path / "blobs" / sha256_file(weights)
    shutil.copy(weights, blob)
    cached = tmp_path / "open_clip_model.safetensors"
    cached.symlink_to(blob)
    tag = {"hf_hub": "toy/repository/", "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "interpolation": "bilinear"}
    monkeypatch.setattr("open_clip.get_pretrained_cfg", lambda *_: tag)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, _name: str(cached) if repo else None)

    local, tagged = find_clip(f"toy-arch/{weights}"), find_clip("toy-arch/mine_tag")
    assert (local.name, tagged.name) == ("toy-arch/mine", "toy-arch/mine_tag")
    assert clip_info(local).sha256 == clip_info(tagged).sha256
    assert (clip_info(tagged).name, clip_info(tagged).kind) == ("toy-arch/mine_tag", "standard")
    sha256 = sha256_file(weights)
    assert (clip_info(local).name, clip_info(local).kind) == (f"toy-arch/mine@{sha256[:8]}", "custom")
    assert tagged.resize == f"Pillow bilinear to {SIZE_PX} px (shortest side, centre crop)"
    networks = [load_clip(source, "cpu") for source in (local, tagged)]
    text_a, text_b = (network.texts(["red shoes"])["text"] for network in networks)
    assert np.array_equal(text_a, text_b)
    image_a, image_b = (network.images(toy_images(2))["image"] for network in networks)
    assert image_a.shape == image_b.shape == (2, 16)
    assert not np.allclose(image_a, image_b), "the tag's own normalisation is used"

    named = find_clip(f"toy-arch/{weights}@mine_tag")
    monkeypatch.setattr("open_clip.list_pretrained_tags_by_model", lambda _: ["mine_tag"])
    for source in (named, find_clip(f"toy-arch/{weights}")):
        assert np.array_equal(load_clip(source, "cpu").images(toy_images(2))["image"], image_b)


def test_resize_is_stated_in_words(demo: Path) -> None:
    assert find_demo_clip(demo / "clip").resize == f"Pillow bicubic to {SIZE_PX} px (squashed)"
