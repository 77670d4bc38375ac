"""Order of the rows of pictures and the gates of a picture, on values that one can sort by hand."""

from __future__ import annotations

import shlex

import pytest

from loupe.metric_specs import METRIC_SPECS
from loupe.reproduce import reproduce_command
from loupe.sample_order import INVALID, RUN_ORDER, failed_gates, gate_columns, sample_orders, sorted_rows, yes_or_no

SPECS = (METRIC_SPECS["clip_demo"], METRIC_SPECS["background_ok"])
ORDERS = {order.name: order for order in sample_orders(SPECS, gates=("background_ok",))}
ROWS = [("red", 0), ("blue", 0), ("green", 1), ("black", 0)]
TEXTS = {"red": "z", "blue": "Y", "green": "x", "black": "w"}
CLIP = {"red": (10.0, 30.0), "blue": (20.0, 15.0), "green": (25.0, 25.0)}
PER_IMAGE = {
    (name, 1 if name == "green" else 0, step): {"clip": values[place]}
    for name, values in CLIP.items()
    for place, step in enumerate((0, 75))
}


def names(order: str) -> list[str]:
    return [name for name, _ in sorted_rows(ROWS, TEXTS, PER_IMAGE, order=ORDERS[order], step=75)]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("Order of the run", ["red", "blue", "green", "black"]),
        ("Prompt, A to Z", ["black", "green", "blue", "red"]),
        ("Biggest gain in clip", ["red", "green", "blue", "black"]),
        ("Biggest loss in clip", ["blue", "green", "red", "black"]),
        ("Lowest clip", ["blue", "green", "red", "black"]),
    ],
)
def test_rows_are_ordered_and_those_without_a_value_come_last(order: str, expected: list[str]) -> None:
    assert names(order) == expected


def test_only_scores_of_a_picture_with_a_direction_make_an_order() -> None:
    assert len(ORDERS) == 2 + 3
    assert sample_orders((METRIC_SPECS["fd_demo"],)) == (RUN_ORDER, ORDERS["Prompt, A to Z"])


def test_what_measures_cannot_be_failed_but_can_be_sorted_by() -> None:
    share, background = METRIC_SPECS["colour_share"], METRIC_SPECS["background_ok"]
    rows = [{"colour_share": 0.0, "background_ok": 0.0}, {"colour_share": 0.4}, {"background_ok": 1.0}]
    per_image = {("red", seed, 0): row for seed, row in enumerate(rows)}
    assert gate_columns((share, background), per_image) == ("background_ok",)
    orders = [order.column for order in sample_orders((share, background), gates=("background_ok",))]
    assert orders == ["", "", "colour_share", "colour_share", "colour_share"]


def test_ties_keep_the_order_of_the_run() -> None:
    same = {(*row, step): {"clip": 1.0} for row in ROWS for step in (0, 75)}
    for order in ORDERS.values():
        if order.by != "prompt":
            assert sorted_rows(ROWS, TEXTS, same, order=order, step=75) == ROWS


def test_a_picture_fails_what_is_no_and_an_invalid_one_nothing_else() -> None:
    assert failed_gates({"clip": 0.0, "background_ok": 0.0}, SPECS) == {"background_ok"}
    assert failed_gates({"background_ok": 1.0}, SPECS) == frozenset()
    assert failed_gates({"invalid_reason": "flat", "background_ok": 0.0}, SPECS) == {INVALID}
    assert failed_gates(None, SPECS) == frozenset()


def test_the_command_survives_a_shell_whatever_the_prompt_holds() -> None:
    text = 'it\'s a "red" $(shoe) {step}'
    command = "75".join(reproduce_command(prompt_id="red_shoes", text=text, seed_index=2))
    words = shlex.split(command)
    assert words[3:] == [
        "generate", text, "--prompt-id", "red_shoes", "--step", "75", "--count", "3", "--output", "reproduced",
    ]  # fmt: skip


def test_a_score_that_should_be_low_fails_where_it_is_one() -> None:
    memorised, background = METRIC_SPECS["memor_share_demo"], METRIC_SPECS["background_ok"]
    assert failed_gates({"memorised": 1.0, "background_ok": 1.0}, (memorised, background)) == {"memorised"}
    assert failed_gates({"memorised": 0.0, "background_ok": 0.0}, (memorised, background)) == {"background_ok"}
    assert (yes_or_no(memorised, 0.0), yes_or_no(background, 0.5)) == (True, None)
