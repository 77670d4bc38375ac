"""params.yaml: every mistake named at once, numbers as DVC writes them, and no rule without its message."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from loupe.errors import PipelineError
from loupe.params import Params, checkpoint_steps, load_params

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def document():
    return YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def load(tmp_path, document):
    path = tmp_path / "params.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(document, file)
    return load_params(path)


def refused(tmp_path, document):
    with pytest.raises(PipelineError) as caught:
        load(tmp_path, document)
    return str(caught.value)


def test_the_repositorys_own_parameters_are_valid_and_frozen():
    params = load_params(ROOT / "params.yaml")
    assert params.data.source == "demo"
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 1


@pytest.mark.parametrize("written", ["1e-05", "1e-5", "1.0e-05", "0.00001", "1E-5"])
def test_floats_as_dvc_and_people_write_them_are_numbers(tmp_path, written):
    """YAML 1.1 readers take 1e-05, which dvc exp run -S writes, for text."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    changed = re.sub(r" learning_rate: \S+", f" learning_rate: {written}", text)
    assert changed != text
    (tmp_path / "params.yaml").write_text(changed, encoding="utf-8")
    assert load_params(tmp_path / "params.yaml").train.learning_rate == 1e-5


def test_extractors_are_a_list_of_distinct_names(tmp_path, document):
    assert load(tmp_path, document).evaluate.extractors == ("demo", "demo-clip")
    document["evaluate"]["extractors"] = ["demo", "demo-clip", "demo"]
    assert "evaluate.extractors: each extractor once (got demo more than once)" in refused(tmp_path, document)
    document["evaluate"]["extractors"] = []
    assert "evaluate.extractors" in refused(tmp_path, document)


@pytest.mark.parametrize(
    ("inception", "clip", "listed"),
    [
        ("demo", "demo", ("demo", "demo-clip")),
        ("standard", "ViT-B-32/openai", ("inception", "ViT-B-32/openai")),
        ("my/weights.pth", "demo", ("inception:my/weights.pth", "demo-clip")),
    ],
)
def test_files_that_name_one_network_each_are_read_as_a_list_of_two(tmp_path, document, inception, clip, listed):
    del document["evaluate"]["extractors"]
    document["evaluate"] |= {"inception": inception, "clip": clip}
    assert load(tmp_path, document).evaluate.extractors == listed
    document["evaluate"]["extractors"] = ["demo"]
    assert "evaluate.inception: unknown key" in refused(tmp_path, document)


@pytest.mark.parametrize("distance", ["kid", "cmmd", "kid_dinov2_base", "cmmd_demo"])
def test_any_kernel_distance_can_be_the_one_that_counts(tmp_path, document, distance):
    document["select"]["distance"] = distance
    assert load(tmp_path, document).select.distance == distance
    document["select"]["distance"] = "fid"
    assert "select.distance" in refused(tmp_path, document)


def test_yes_and_on_are_words_and_not_booleans(tmp_path, document):
    document["export"]["trigger"] = "on"
    assert load(tmp_path, document).export.trigger == "on"


def test_all_problems_are_named_at_once_with_what_was_meant(tmp_path, document):
    document["train"]["learning_rat"] = document["train"].pop("learning_rate")
    document["train"]["max_steps"] = 0
    document["train"]["rank"] = 0
    document["data"]["source"] = "kagle"
    document["trian"] = {}
    del document["select"]
    message = refused(tmp_path, document)
    assert "train.learning_rat: unknown key; did you mean train.learning_rate?" in message
    assert "train.learning_rate: missing" in message
    assert "train.max_steps: must be greater than 0 (got 0)" in message
    assert "train.rank: must be greater than 0 (got 0)" in message
    assert "data.source: must be 'demo', 'kaggle-fashion', 'pairs' or 'captions-json' (got 'kagle')" in message
    assert "trian: unknown key; did you mean train?" in message
    assert "select: missing" in message
    assert "params.yaml: 7 problems" in message


def test_an_unknown_key_like_nothing_known_lists_what_is(tmp_path, document):
    document["model"]["zzzzzz"] = 1
    assert "model.zzzzzz: unknown key; known: base, revision" in refused(tmp_path, document)


@pytest.mark.parametrize(
    ("section", "changes", "said"),
    [
        ("data", {"resolution": 100}, "data.resolution: must be a multiple of 8 and at least 64 (got 100)"),
        ("data", {"resolution": 32}, "at least 64 (got 32)"),
        ("data", {"max_rejected_share": 1.5}, "data.max_rejected_share"),
        ("train", {"learning_rate": "fast"}, "train.learning_rate"),
        ("train", {"learning_rate": float("nan")}, "train.learning_rate"),
        ("train", {"target_modules": []}, "train.target_modules: must be one of qv, attention"),
        ("train", {"target_modules": 3}, "or a list of at least one layer name (got 3)"),
        ("train", {"target_modules": ["to_q", ""]}, "or a list of at least one layer name"),
        ("train", {"target_modules": "atention"}, "no preset is called 'atention': qv, attention, attention+ff"),
        ("train", {"target_modules": "atention"}, "did you mean attention?"),
        ("train", {"optimizer": "adam"}, "train.optimizer: must be 'adamw', 'adamw_8bit' or 'prodigy' (got 'adam')"),
        ("train", {"lora_dropout": 1.0}, "train.lora_dropout: must be less than 1 (got 1.0)"),
        ("train", {"lora_dropout": -0.1}, "train.lora_dropout"),
        ("train", {"ema_decay": 1.0}, "train.ema_decay: must be less than 1 (got 1.0)"),
        ("train", {"ema_decay": 0.0}, "train.ema_decay: must be greater than 0 (got 0.0)"),
        ("train", {"max_steps": 300, "checkpoint_every": 301}, "checkpoint_every (301) is more than max_steps (300)"),
        ("train", {"max_steps": 300, "lr_warmup_steps": 300}, "lr_warmup_steps (300) must be below max_steps (300)"),
        ("train", {"max_steps": 2.5}, "train.max_steps"),
        ("train", {"max_steps": "300"}, "train.max_steps"),
        ("train", {"rank": True}, "train.rank"),
        ("train", {"noise_offset": 1e6}, "train.noise_offset: must be less than or equal to 1"),
        ("train", {"adam_epsilon": 1e9}, "train.adam_epsilon: must be less than or equal to 1"),
        ("train", {"max_grad_norm": 1e-30}, "train.max_grad_norm: must be greater than or equal to 0.000001"),
        ("train", {"snr_gamma": 1e-30}, "train.snr_gamma: must be greater than or equal to 0.01"),
        ("train", {"weight_decay": 1000}, "train.weight_decay: must be less than or equal to 10"),
        (
            "train",
            {"weight_decay": 2, "learning_rate": 0.5},
            "learning_rate x weight_decay is 1: every step would take",
        ),
        ("train", {"caption_dropout": 1}, "caption_dropout is 1, so no caption would ever be seen"),
        ("train", {"max_steps": 10**10}, "train.max_steps: must be less than or equal to 10000000"),
        ("train", {"batch_size": 10**9}, "train.batch_size: must be less than or equal to 4096"),
        ("train", {"gradient_accumulation_steps": 10**9}, "must be less than or equal to 4096"),
        ("train", {"rank": 100_000}, "train.rank: must be less than or equal to 1280 (got 100000)"),
        ("train", {"alpha": True}, "train.alpha"),
        ("train", {"learning_rate": 1e9}, "train.learning_rate: must be less than or equal to 10 (got 1000000000.0)"),
        ("train", {"learning_rate": "1e-4"}, "train.learning_rate"),
        ("train", {"caption_dropout": False}, "train.caption_dropout"),
        ("train", {"validation_timesteps": 7}, "train.validation_timesteps: must be greater than or equal to 8"),
        ("generate", {"num_inference_steps": 1001}, "less than or equal to 1000"),
        ("generate", {"guidance_scale": 0.5}, "generate.guidance_scale"),
        ("generate", {"prompts": {"../x": "a shoe"}}, "ids must be lower-case"),
        ("generate", {"prompts": {"val_1": "a shoe"}}, "not starting val_ or test_"),
        ("generate", {"prompts": {"a": "  "}}, "empty prompts: ['a']"),
        ("generate", {"prompts": {}, "val_captions": 0}, "there is no prompt"),
        ("generate", {"seeds_per_prompt": 1001}, "less than or equal to 1000"),
        ("export", {"name": "../x"}, "export.name"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(tmp_path, document, section, changes, said):
    document[section] |= changes
    assert said in refused(tmp_path, document)


def test_contradictory_knobs_of_training_are_named_at_once(tmp_path, document):
    document["train"] |= {"max_steps": 10, "checkpoint_every": 11, "lr_warmup_steps": 10}
    document["data"]["resolution"] = 100
    message = refused(tmp_path, document)
    assert "checkpoint_every (11) is more than max_steps (10)" in message
    assert "lr_warmup_steps (10) must be below max_steps (10)" in message
    assert "data.resolution" in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"text_encoder_learning_rate": 5e-5},
            "train: text_encoder_learning_rate is 5e-05, but train_text_encoder is false, so nothing would learn at it",
        ),
        (
            {"train_text_encoder": True, "text_encoder_learning_rate": 1.0, "optimizer": "prodigy"},
            "text_encoder_learning_rate is 1, but prodigy finds one step size for all weights: set it to null",
        ),
        (
            {"train_text_encoder": True, "caption_dropout": 1.0},
            "caption_dropout is 1, so the text encoder would be trained (train_text_encoder) on the empty caption",
        ),
        ({"train_text_encoder": True, "text_encoder_learning_rate": 0.0}, "must be greater than 0 (got 0.0)"),
        ({"train_text_encoder": "sometimes"}, "train.train_text_encoder"),
    ],
)
def test_contradictory_knobs_of_the_text_encoder_are_refused(tmp_path, document, changes, said):
    document["train"] |= changes
    assert said in refused(tmp_path, document)


def test_the_text_encoder_may_be_trained_at_a_rate_of_its_own(tmp_path, document):
    document["train"] |= {"train_text_encoder": True, "text_encoder_learning_rate": 5e-5, "caption_dropout": 0.1}
    assert load(tmp_path, document).train.text_encoder_learning_rate == 5e-5


@pytest.mark.parametrize("value", ["qv", "attention+ff", "all-linear-conv", ["to_q", "conv1"]])
def test_target_modules_are_a_preset_or_names(tmp_path, document, value):
    document["train"]["target_modules"] = value
    loaded = load(tmp_path, document).train.target_modules
    assert loaded == (value if isinstance(value, str) else tuple(value))


@pytest.mark.parametrize(
    ("shares", "said"),
    [((0.7, 0.2, 0.2), "must be 1 (got 1.1)"), ((1.0, 0.0, 0.0), "must each be greater than 0")],
)
def test_split_shares_must_add_up(tmp_path, document, shares, said):
    document["data"]["split"] |= dict(zip(("train", "val", "test"), shares, strict=True))
    assert said in refused(tmp_path, document)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not there. Copy one of profiles/"),
        (b"", "must hold sections"),
        (b"- a\n- b\n", "must hold sections such as `train:`; found list"),
        (b"seed: 1\nseed: 2\n", "line 2"),
        (b"train: {a: [1\n", "line 2"),
        (b"seed: \xff\n", "not UTF-8 (byte 6)"),
    ],
)
def test_an_unreadable_file_names_the_place(tmp_path, content, said):
    if content is not None:
        (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(PipelineError) as caught:
        load_params(tmp_path / "params.yaml")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("max_steps", "every", "steps"),
    [
        (300, 75, (75, 150, 225, 300)),
        (310, 75, (75, 150, 225, 300, 310)),
        (10, 75, (10,)),
        (75, 75, (75,)),
        (3, 1, (1, 2, 3)),
    ],
)
def test_the_list_of_checkpoints_ends_at_max_steps(max_steps, every, steps):
    assert checkpoint_steps(max_steps, every) == steps


def test_every_parameter_says_what_it_means():
    def silent(model, prefix=""):
        for name, field in model.model_fields.items():
            if not field.description:
                yield prefix + name
            if hasattr(field.annotation, "model_fields"):
                yield from silent(field.annotation, f"{prefix}{name}.")

    assert not list(silent(Params))


def test_nothing_has_a_default():
    def defaulted(model):
        for name, field in model.model_fields.items():
            if not field.is_required():
                yield name
            if hasattr(field.annotation, "model_fields"):
                yield from defaulted(field.annotation)

    assert not list(defaulted(Params))
