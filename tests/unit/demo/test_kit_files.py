"""The committed kit: complete, small, true to its own hashes, and loadable by the ordinary classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from loupe.atomic_io import sha256_file
from loupe.demo.catalogue import ARTICLE_TYPES, COLOURS, render_item, sample_item
from loupe.demo.kit.check import load_base, predict, ring_white_share
from loupe.demo.kit.scorer_clip import load_clip
from loupe.demo.kit.trial import sample
from loupe.errors import PipelineError
from loupe.metrics.classifier import load_classifier

KIT = Path(__file__).resolve().parents[3] / "data" / "demo"


@pytest.fixture(scope="module")
def record():
    return json.loads((KIT / "kit.json").read_text(encoding="utf-8"))


def test_every_file_is_listed_with_its_hash_and_no_other_is_there(record):
    files = {path.relative_to(KIT).as_posix() for path in KIT.rglob("*") if path.is_file()} - {"kit.json"}
    assert files == set(record["sha256"])
    assert {name: sha256_file(KIT / name) for name in files} == record["sha256"]


def test_the_kit_is_small_and_holds_only_safetensors():
    assert sum(path.stat().st_size for path in KIT.rglob("*") if path.is_file()) <= 30_000_000
    assert {path.suffix for path in KIT.rglob("*") if path.is_file()} <= {".safetensors", ".json", ".gz", ".csv"}


def test_scorers_reach_what_the_demo_promises(record):
    checks = record["checks"]
    for look in ("everyday", "catalogue"):
        assert checks[look]["classifier"]["colour"] >= 0.95
        assert checks[look]["classifier"]["article_type"] >= 0.95
    assert checks["catalogue_prompts"]["lora"]["colour_agreement"] >= 0.80
    assert checks["catalogue_prompts"]["base"]["background_pass"] < 0.30


def test_white_borders_reach_what_the_demo_promises(record):
    assert record["checks"]["catalogue_prompts"]["lora"]["background_pass"] >= 0.90


def test_base_paints_what_it_is_asked_for():
    pipeline, classifier = load_base(KIT / "base"), load_classifier(KIT / "classifier")
    asked = [("Handbags", "Red", "a photo of a red handbag"), ("Bottles", "Green", "a photo of a green bottle")]
    pictures = sample(pipeline, [text for *_, text in asked] * 4, seeds=range(8))
    types, colours = predict(classifier, pictures)
    hits = [
        ARTICLE_TYPES[t] == asked[k % 2][0] and COLOURS[c] == asked[k % 2][1]
        for k, (t, c) in enumerate(zip(types, colours, strict=True))
    ]
    assert sum(hits) >= 6
    assert (ring_white_share(pictures) >= 0.99).mean() < 0.3


def test_scorers_name_fresh_renderings():
    rng = np.random.default_rng(77)
    items = [sample_item(rng) for _ in range(40)]
    pictures = np.stack([render_item(item, look="catalogue", size_px=128) for item in items])
    types, colours = predict(load_classifier(KIT / "classifier"), pictures)
    assert np.mean([ARTICLE_TYPES[t] == item.article_type for t, item in zip(types, items, strict=True)]) >= 0.9
    assert np.mean([COLOURS[c] == item.colour for c, item in zip(colours, items, strict=True)]) >= 0.9
    model, tokenizer = load_clip(KIT / "clip")
    texts = model.encode_text(
        tokenizer([f"a photo of {i.colour.lower()} {i.article_type.lower()}" for i in items]), normalize=True
    )
    images = model.encode_image(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1, normalize=True)
    own, others = (images * texts).sum(1), images @ texts.T
    assert float(own.mean()) > float(others.mean()) + 0.2


def test_a_classifier_without_weights_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="demo-kit"):
        load_classifier(tmp_path)
