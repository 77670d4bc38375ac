"""Brand and product family out of a catalogue name such as "Puma Men's Basket White Green Shoe".

A family is the name without colour, gender and article-type words: colour variants of one product share it. Names that
say nothing beyond the brand ("Vans Men Black Shoes") share one family per brand, which errs on the side of no leak.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_GENDER = re.compile(r"(men|man|women|woman|unisex|boy|girl|kid|teen|infant|him|her)('?s)?", re.IGNORECASE)
_WORD = re.compile(r"[^\s,;()\[\]/]+")
_SHADES = frozenset({"light", "dark", "gray", "coloured", "colored", "color", "colour", "multicolour", "multicolor"})
_MAX_BRAND_WORDS = 4


def colour_words(colours: Iterable[str]) -> frozenset[str]:
    """Return the single words, lower-case, that name a colour in a catalogue with these colour values."""
    return _SHADES.union(word.lower() for colour in colours for word in colour.split())


def brand_of(name: str, colours: frozenset[str]) -> str:
    """Return the words before the first gender word or, where there is none, before the first colour word; or ''."""
    words = name.split()
    for ends_brand in (_is_gender, lambda word: word.lower() in colours):
        place = next((i for i, word in enumerate(words) if ends_brand(word)), None)
        if place is not None:
            return " ".join(words[:place]) if place <= _MAX_BRAND_WORDS else ""
    return ""


def family_of(name: str, article_type: str, colours: frozenset[str]) -> str:
    """Return the name's distinguishing words, lower-case, without colour, gender and article-type words; or ''."""
    generic = {_singular(word) for word in article_type.lower().split()}
    words = (match.group().lower() for match in _WORD.finditer(name))
    kept = [
        word for word in words if word not in colours and not _is_gender(word) and _singular(word) not in generic
    ]
    return " ".join(kept)


def _is_gender(word: str) -> bool:
    return _GENDER.fullmatch(word) is not None


def _singular(word: str) -> str:
    return word.removesuffix("s")
