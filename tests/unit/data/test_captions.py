"""Captions from a template: a missing field drops its clause, an unknown one is refused."""

import pytest

from loupe.data.captions import parse_template
from loupe.errors import PipelineError

DOCUMENTED = (
    "A professional product photo of {colour} casual shoes, {season} collection, {gender}, {brand} brand, "
    "centered on white background, high quality, product photography"
)
FULL = {"colour": "Navy Blue", "season": "Summer", "gender": "Men", "brand": "Red Tape"}


def test_the_documented_template():
    assert parse_template(DOCUMENTED).caption(FULL) == (
        "A professional product photo of navy blue casual shoes, summer collection, men, Red Tape brand, "
        "centered on white background, high quality, product photography"
    )


@pytest.mark.parametrize("missing", ["colour", "season", "gender", "brand"])
def test_a_missing_field_drops_its_clause_and_nothing_else(missing):
    whole = parse_template(DOCUMENTED).caption(FULL).split(", ")
    clause = ["colour", "season", "gender", "brand"].index(missing)
    without = {key: value for key, value in FULL.items() if key != missing}
    assert parse_template(DOCUMENTED).caption(without).split(", ") == whole[:clause] + whole[clause + 1 :]
    assert parse_template(DOCUMENTED).caption({**without, missing: ""}) == parse_template(DOCUMENTED).caption(without)


def test_a_comma_or_a_brace_in_a_value_is_only_text():
    assert parse_template("{brand} shoes, new").caption({"brand": "a, {b}"}) == "a, {b} shoes, new"


def test_doubled_braces_are_literal():
    assert parse_template("{{x}} {colour}").caption({"colour": "Red"}) == "{x} red"


def test_all_problems_of_a_template_are_named_at_once():
    with pytest.raises(PipelineError) as caught:
        parse_template("a {color} shoe, {brand!r}, {brand:>9}, {gender, {xyzzy}, {}")
    message = str(caught.value)
    assert "unknown field {color}; did you mean {colour}?" in message
    assert "unknown field {xyzzy}; known: article_type, colour" in message
    assert "unknown field {}" in message
    assert message.count("only plain fields") == 2
    assert "write a literal brace twice, as {{ or }}" in message


def test_attributes_of_a_field_cannot_be_reached():
    with pytest.raises(PipelineError, match="unknown field"):
        parse_template("{brand.__class__}")
