"""The full-size fixture has the published sizes, without making its weights."""

import json

import pytest
import torch

from benchmarks.full_size import (
    MODEL_INDEX,
    N_PARAMETERS,
    NOISE_SCHEDULER,
    PARTS,
    VOCABULARY_SIZE,
    fill,
    make_tokenizer,
    make_unet,
)
from benchmarks.gpu_variants import VARIANTS
from loupe.diffusion import trainer_start
from loupe.diffusion.adapter import WEIGHTS_FILE, AdapterConfig, adapter_parameters, add_adapter, save_adapter
from loupe.diffusion.model_loading import load_noise_scheduler, load_tokenizer
from loupe.diffusion.target_modules import resolve_target_modules


def test_the_published_numbers_are_the_ones_asked_for():
    assert N_PARAMETERS == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}


@pytest.mark.parametrize("part", PARTS)
def test_each_part_has_the_published_number_of_parameters(part):
    with torch.device("meta"):
        model = PARTS[part]()
    assert sum(p.numel() for p in model.parameters()) == N_PARAMETERS[part]


def test_the_adapter_of_rank_8_on_the_attention_projections_has_the_published_size(tmp_path):
    with torch.device("meta"):
        unet = make_unet().requires_grad_(False)
    names = resolve_target_modules(unet, "attention")
    add_adapter(unet, rank=8, alpha=16, target_modules=names, generator=torch.Generator())
    state = {key: torch.zeros(p.shape) for key, p in adapter_parameters(unet).items()}
    assert len({key.rpartition(".lora_")[0] for key in state}) == 128
    n_adapter = sum(t.numel() for t in state.values())
    assert n_adapter == 1_594_368
    assert n_adapter / N_PARAMETERS["unet"] == pytest.approx(0.0019, abs=5e-5)
    _save(tmp_path, state, names)
    assert (tmp_path / WEIGHTS_FILE).stat().st_size / 1e6 == pytest.approx(6.4, abs=0.1)


def _save(folder, state, names):
    save_adapter(folder, state, AdapterConfig(rank=8, alpha=16, target_modules=names, base_model="full-size"))


def test_the_tokenizer_has_the_vocabulary_and_spells_any_text(tmp_path):
    tokenizer = make_tokenizer()
    assert len(tokenizer) == VOCABULARY_SIZE
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    loaded = load_tokenizer(tmp_path)
    tokens = loaded("a photo of red shoes, 30 € é", padding="max_length", truncation=True, max_length=77).input_ids
    assert len(tokens) == 77
    assert max(tokens) < VOCABULARY_SIZE
    assert loaded.unk_token_id == loaded.eos_token_id
    assert loaded.decode(tokens, skip_special_tokens=True).replace(" ", "") == "aphotoofredshoes,30€é"


def test_the_scheduler_is_read_as_any_base_models(tmp_path):
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(NOISE_SCHEDULER))
    alphas = load_noise_scheduler(tmp_path).alphas_cumprod
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    assert torch.allclose(alphas.double(), (1 - betas).cumprod(0), atol=1e-5)


def test_weights_keep_the_scale_of_their_input():
    layer = torch.nn.Linear(512, 512)
    norm = torch.nn.GroupNorm(4, 8)
    model = torch.nn.ModuleList([layer, norm])
    fill(model, seed=3)
    inputs = torch.randn(64, 512, generator=torch.Generator().manual_seed(1))
    assert layer(inputs).std().item() == pytest.approx(1.0, abs=0.1)
    assert norm.weight.eq(1).all()
    assert norm.bias.eq(0).all()


def test_the_model_index_names_the_parts_that_are_written():
    parts = {name for name, value in MODEL_INDEX.items() if not name.startswith("_") and value[0] is not None}
    assert parts == {*PARTS, "tokenizer", "scheduler"}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_of_the_gpu_benchmark_changes_the_trainer_that_is_built(tiny_base_model, name):
    layouts_before, timed_before = _conv_layouts(tiny_base_model), torch.backends.cudnn.benchmark
    with VARIANTS[name]():
        assert (True in _conv_layouts(tiny_base_model)) is (name in ("channels_last", "all_of_them"))
        assert torch.backends.cudnn.benchmark is (name in ("chosen_convolutions", "all_of_them"))
    assert _conv_layouts(tiny_base_model) == layouts_before == {False}
    assert torch.backends.cudnn.benchmark is timed_before


def _conv_layouts(base):
    """Return whether the 3 x 3 convolutions' weights of the UNet that a trainer gets lie channels-last."""
    unet = trainer_start.load_unet(base, device="cpu", dtype=torch.float32)
    weights = [m.weight for m in unet.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    return {
        not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last) for weight in weights
    }
