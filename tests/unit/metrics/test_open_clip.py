"""open_clip models by name: what cannot be had says so, what was altered is refused, what is one's own is renamed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from loupe.atomic_io import sha256_file
from loupe.errors import PipelineError
from loupe.metrics.clip import clip_info, find_clip, find_demo_clip, load_clip
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


def test_resize_is_stated_in_words(demo: Path) -> None:
    assert find_demo_clip(demo / "clip").resize == f"Pillow bicubic to {SIZE_PX} px (squashed)"
