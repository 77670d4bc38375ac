"""Brand and product family out of a catalogue name such as "Puma Men's Basket White Green Shoe".

A family is the name without colour, gender and article-type words: colour variants of one product share it. Names that
say nothing beyond the brand ("Vans Men Black Shoes") share one family per brand, which errs on the side of no leak.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_GENDER = re.compile(r"(men|man|women|woman|unisex|boy|girl|kid|teen|infant|him|her)('?s)?", re.IGNORECASE)
_WORD = re.compile(r"\w[^\s;()\[\]/]*")
_SHADES = frozenset({"light", "dark", "gray", "coloured", "colored", "color", "colour", "multicolour", "multicolor"})
_MAX_BRAND_WORDS = 4


def colour_words(colours: Iterable[str]) -> frozenset[str]:
    """Return the single words, lower-case, that name a colour in a catalogue with these colour values."""
    return _SHADES.union(word.lower() for colour in colours for word in colour.split())


def brand_of(name: str, colours: frozenset[str]) -> str:
    """Return the words before the first gender word or, where there is none, before the first colour word; or ''.

    A colour may begin a brand (Red Tape) but does not end one.
    """
    words = name.split()
    end = next((i for i, word in enumerate(words) if _is_gender(word)), None)
    if end is None:
        end = next((i for i, word in enumerate(words) if i > 0 and word.lower() in colours), 0)
    while end > 1 and words[end - 1].lower() in colours:
        end -= 1
    return " ".join(words[:end]) if end <= _MAX_BRAND_WORDS else ""


def family_of(name: str, article_type: str, colours: frozenset[str]) -> str:
    """Return brand and distinguishing words, lower-case, without colour, gender and article-type words; or ''."""
    brand = brand_of(name, colours)
    generic = {_singular(word) for word in article_type.lower().split()} | {"and"}
    # What follows a comma describes ("..., Limited Edition"); it does not name.
    words = (match.group().lower() for match in _WORD.finditer(name.removeprefix(brand).partition(",")[0]))
    kept = [word for word in words if word not in colours and not _is_gender(word) and _singular(word) not in generic]
    return " ".join([*brand.lower().split(), *kept])


def _is_gender(word: str) -> bool:
    return _GENDER.fullmatch(word) is not None


def _singular(word: str) -> str:
    return word.removesuffix("s")
