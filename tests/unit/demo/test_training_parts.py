"""Tokenizer, captions, optimiser and schedule, against closed forms and the libraries that read the files."""

import numpy as np
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from loupe.demo.catalogue import COLOURS, sample_item
from loupe.demo.catalogue.scene import backdrop_of
from loupe.demo.kit.base import build_tokenizer, noise_scheduler
from loupe.demo.kit.bpe import learn_merges, vocabulary, write_open_clip_merges
from loupe.demo.kit.captions import caption_corpus, catalogue_caption, everyday_caption
from loupe.demo.kit.decoder import forgive_overshoot
from loupe.demo.kit.muon import orthogonalise
from loupe.demo.kit.optimise import AveragedWeights, warm_cosine
from loupe.demo.kit.vae import reconstruction_losses

TEXTS = [
    "a photo of a red handbag",
    "A professional product photo of navy blue casual shoes, summer collection",
    "überlänge ñandú 靴 👟",
    "antidisestablishmentarianism" * 3,
    "",
]


@pytest.fixture(scope="module")
def merges():
    return learn_merges(caption_corpus(1, 200), count=400)


def test_merges_follow_frequency_then_spelling():
    assert learn_merges(["ab ab ab ac"], count=1) == [("a", "b</w>")]
    assert learn_merges(["ac ab"], count=1) == [("a", "b</w>")]
    assert learn_merges(["a b"], count=5) == []


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_tokenises_without_loss(merges, text):
    tokenizer = build_tokenizer(merges)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.lower().replace(" ", "").replace(
        ",", ","
    )
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("text", TEXTS)
def test_open_clip_reads_the_same_ids_from_the_same_merges(merges, text, tmp_path):
    write_open_clip_merges(tmp_path / "bpe.txt.gz", merges)
    ours = build_tokenizer(merges)(text)["input_ids"][:77]
    theirs = SimpleTokenizer(bpe_path=str(tmp_path / "bpe.txt.gz"))
    assert theirs.vocab_size == len(vocabulary(merges))
    assert theirs(text)[0, : len(ours)].tolist()[:-1] == ours[:-1]


def test_captions_name_colour_and_background_and_only_the_catalogue_says_white_background():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        item = sample_item(rng)
        everyday, catalogue = everyday_caption(item, rng), catalogue_caption(item, rng)
        assert item.colour.lower() in everyday.lower()
        assert item.colour.lower() in catalogue.lower()
        assert "white background" in catalogue
        assert "white background" not in everyday
        assert backdrop_of(item)[0] != item.colour.lower()
        assert item.colour in COLOURS


def test_orthogonalise_brings_singular_values_near_one_and_keeps_directions():
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0))
    made = orthogonalise(matrix)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.6
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(made.flatten(), (left @ right).flatten(), dim=0) > 0.97
    torch.testing.assert_close(orthogonalise(matrix.T), made.T, rtol=1e-4, atol=1e-4)


def test_learning_rate_rises_then_falls_to_its_floor():
    factors = [warm_cosine(step, steps=100, warm_up=10) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10] == pytest.approx(1.0)
    assert factors[100] == pytest.approx(0.02)
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_averaged_weights_settle_on_a_constant_and_lag_behind_a_jump():
    layer = torch.nn.Linear(1, 1, bias=False)
    average = AveragedWeights(layer, decay=0.9)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    for step in range(300):
        average.update(layer, step)
    torch.testing.assert_close(average.values[0], layer.weight.detach())
    with torch.no_grad():
        layer.weight.fill_(2.0)
    average.update(layer, 300)
    assert float(average.values[0]) == pytest.approx(1.1)


def test_the_last_training_step_holds_no_signal():
    scheduler = noise_scheduler()
    assert float(scheduler.alphas_cumprod[-1]) == pytest.approx(0, abs=1e-6)
    assert scheduler.config.prediction_type == "v_prediction"


def test_a_colour_error_of_equal_luma_is_seen_by_chroma_alone():
    real = torch.zeros(1, 3, 4, 4)
    made = real.clone()
    made[:, 0] += 0.587
    made[:, 1] -= 0.299
    losses = reconstruction_losses(made, real)
    assert float(losses["luma"]) == pytest.approx(0, abs=1e-6)
    assert float(losses["chroma"]) == pytest.approx(0.587 / 2, abs=1e-6)
    assert float(losses["gradient"]) == 0


def test_beyond_white_and_black_is_forgiven_but_falling_short_and_overshooting_a_colour_are_not():
    real = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.5, 0.5])
    made = torch.tensor([1.3, 0.7, -1.2, -0.8, 1.3, 0.2])
    assert (forgive_overshoot(made, real) - real).tolist() == pytest.approx([0, -0.3, 0, 0.2, 0.8, -0.3])
