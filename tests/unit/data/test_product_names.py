"""Brand and family from names as they really are written."""

import pytest

from loupe.data.product_names import brand_of, colour_words, family_of

COLOURS = colour_words(["Black", "White", "Green", "Navy Blue", "Red", "Brown", "Off White"])


@pytest.mark.parametrize(
    ("name", "brand"),
    [
        ("Puma Men's Basket White Green Shoe", "Puma"),
        ("United Colors of Benetton Men Cboar Brown Casual Shoes", "United Colors of Benetton"),
        ("ADIDAS Black Hydroterra Shandal Casual Shoes", "ADIDAS"),
        ("Red Tape Men Brown Shoes", "Red Tape"),
        ("Red Tape Black Men Casual Shoes", "Red Tape"),
        ("Marvel Navy Blue Boys Shoes", "Marvel"),
        ("Men Black Shoes", ""),
        ("Playboy", ""),
        ("", ""),
        ("A very long line of words before Men Shoes", ""),
    ],
)
def test_brand(name, brand):
    assert brand_of(name, COLOURS) == brand


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Puma Men's Basket White Green Shoe", "Puma Men Basket Black Casual Shoes"),
        ("Vans Unisex Old Skool Red Shoes", "Vans Men Navy Blue Old Skool Shoes"),
        ("GAS Men Grey-free Caddy Casual Shoe", "Gas Men Grey-free Caddy Brown Shoes"),
        ("Nordlund Men Drift 12 Red Casual Shoes, Limited Edition", "Nordlund Men Drift 12 Black Casual Shoes"),
        ("Newfeel Unisex White, Blue and Orange Casual Shoes", "Newfeel Unisex Black & Red Casual Shoes"),
    ],
)
def test_colour_variants_share_a_family(one, other):
    assert family_of(one, "Casual Shoes", COLOURS) == family_of(other, "Casual Shoes", COLOURS) != ""


def test_different_models_and_brands_do_not_share_a_family():
    names = ["Puma Men Basket Black Shoes", "Puma Men Cabana Black Shoes", "Fila Men Basket Black Shoes"]
    assert len({family_of(name, "Casual Shoes", COLOURS) for name in names}) == 3


def test_a_brand_that_begins_with_a_colour_keeps_it():
    assert family_of("Red Tape Men Red Shoes", "Casual Shoes", COLOURS) == "red tape"
