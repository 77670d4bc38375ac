"""Ids become file names: none may lead out of its folder or collide with another on any platform."""

import pytest

from loupe.data.items import colliding_ids, is_safe_id, shortened


@pytest.mark.parametrize("image_id", ["15970", "a", "IMG_001 (2)", "größe", "a.b", "靴"])
def test_ordinary_ids_are_safe(image_id):
    assert is_safe_id(image_id)


@pytest.mark.parametrize(
    "image_id",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/x",
        ".hidden",
        "x.",
        " x",
        "x ",
        "a\nb",
        "a\0b",
        "c:x",
        "a*",
        "\ud800",
        "x" * 151,
    ],
)
def test_ids_that_could_lead_elsewhere_are_not(image_id):
    assert not is_safe_id(image_id)


def test_collisions_ignore_case_and_unicode_form():
    named = [("Shoe", "1"), ("shoe", "2"), ("caf\u00e9", "3"), ("cafe\u0301", "4"), ("other", "5")]
    assert colliding_ids(named) == ["Shoe: 1, 2", "caf\u00e9: 3, 4"]


def test_a_list_is_shortened_only_past_twenty():
    assert shortened(["x"] * 20) == ["x"] * 20
    assert shortened(["x"] * 23) == [*["x"] * 20, "and 3 more"]
