import pytest

from loupe.diffusion.model_loading import load_tokenizer
from loupe.diffusion.prompts import caption_prompts, check_prompt_lengths, colour_in_text, fixed_prompts
from loupe.errors import PipelineError
from loupe.records import CaptionRecord, PromptRecord

COLOURS = ["Black", "Blue", "Navy Blue", "Red", "White"]


def _caption(image_id, colour=None, split="val"):
    return CaptionRecord(
        image_id=image_id,
        split=split,
        file=f"{split}/images/x.png",
        caption=f"a photo of {colour} shoes {image_id}",
        sha256="0" * 64,
        source_width_px=8,
        source_height_px=8,
        attributes={} if colour is None else {"colour": colour},
    )


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("a photo of black casual shoes", "Black"),
        ("NAVY BLUE shoes", "Navy Blue"),
        ("navy blue shoes on a blue ground", None),
        ("blackboard, bluetooth and reddish", None),
        ("shoes, black", "Black"),
        ("black shoes, very black", "Black"),
        ("casual shoes", None),
        ("black casual shoes, centered on white background", "Black"),
        ("red shoes, white studio background", "Red"),
        ("Red shoes before a NAVY BLUE backdrop", "Red"),
        ("white shoes on black", None),
        ("shoes on white background", None),
    ],
)
def test_the_colour_is_the_one_known_colour_in_whole_words_longest_first(text, colour):
    assert colour_in_text(text, COLOURS) == colour


def test_without_known_colours_no_colour_is_found():
    assert colour_in_text("black shoes", []) is None


def test_fixed_prompts_keep_their_order_and_text():
    prompts = fixed_prompts({"b": "red shoes", "a": "shoes"}, known_colours=COLOURS)
    assert prompts == [
        PromptRecord(prompt_id="b", text="red shoes", colour="Red"),
        PromptRecord(prompt_id="a", text="shoes", colour=None),
    ]


def test_captions_are_spread_over_colours():
    captions = [_caption(str(n), "Black") for n in range(20)]
    captions += [_caption("100", "Red"), _caption("101", "Red"), _caption("102", "Blue"), _caption("103")]
    chosen = [prompt.colour for prompt in caption_prompts(captions, split="val", count=7, seed=1)]
    assert chosen == ["Black", "Red", None, "Blue", "Black", "Red", "Black"]


def test_a_longer_choice_begins_with_the_shorter_one_and_ignores_the_order_of_the_file():
    captions = [_caption(str(n), COLOURS[n % 5]) for n in range(40)]
    few = caption_prompts(captions, split="val", count=6, seed=3)
    assert caption_prompts(captions[::-1], split="val", count=15, seed=3)[:6] == few
    assert caption_prompts(captions, split="val", count=6, seed=4) != few


def test_asking_for_more_captions_than_there_are_is_refused_with_the_parameter_to_lower():
    with pytest.raises(PipelineError, match=r"3 captions of the val split.*it has 2.*generate\.val_captions"):
        caption_prompts([_caption("1"), _caption("2")], split="val", count=3, seed=0)
    with pytest.raises(PipelineError, match=r"confirm\.test_captions"):
        caption_prompts([], split="test", count=1, seed=0)


def test_ids_name_folders_on_every_file_system_and_stay_distinct():
    ids = ["15970", "a/b", "a:b", "Ünï", "SHOE", "shoe", "x" * 90, "../../etc", "a b"]
    prompts = caption_prompts([_caption(i) for i in ids], split="val", count=len(ids), seed=0)
    names = [prompt.prompt_id for prompt in prompts]
    assert len({name.lower() for name in names}) == len(ids)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_") and len(name) < 60 for name in names)
    assert "val_15970" in names


def test_fixed_prompts_that_would_be_cut_off_are_refused_all_at_once(tiny_base_model):
    tokenizer = load_tokenizer(tiny_base_model)
    fits = PromptRecord(prompt_id="fits", text="red " * 75, colour=None)
    long = PromptRecord(prompt_id="long", text="red " * 76, colour=None)
    check_prompt_lengths(tokenizer, [fits], negative_prompt="red " * 75)
    with pytest.raises(PipelineError, match=r"(?s)prompts\.long: 78 tokens.*77.*negative_prompt: 82"):
        check_prompt_lengths(tokenizer, [fits, long], negative_prompt="red " * 80)


def test_captions_that_are_cut_off_are_counted_in_a_warning(tiny_base_model, capsys):
    tokenizer = load_tokenizer(tiny_base_model)
    prompts = [PromptRecord(prompt_id=f"val_{n}", text="red " * (75 + n), colour=None) for n in range(3)]
    check_prompt_lengths(tokenizer, prompts, negative_prompt="")
    assert "2 captions used as prompts are longer than 77 tokens" in capsys.readouterr().out
