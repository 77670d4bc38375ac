"""Byte-pair encoding in CLIP's scheme, learnt from our own captions, for transformers and open_clip.

The vocabulary holds every byte, so any UTF-8 text is tokenised without loss (case apart). Ids are the same in both
tokenizers.
Scheme: Sennrich et al. 2016 with the byte alphabet and end-of-word marks of Radford et al. 2021.
"""

import gzip
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from loupe.atomic_io import write_bytes

END_OF_WORD = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"
_WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+|_+")

Merge = tuple[str, str]


def byte_alphabet() -> dict[int, str]:
    """A printable character for each of the 256 bytes, in CLIP's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def _join(symbols: tuple[str, ...], pair: Merge) -> tuple[str, ...]:
    joined: list[str] = []
    place = 0
    while place < len(symbols):
        if symbols[place : place + 2] == pair:
            joined.append(pair[0] + pair[1])
            place += 2
        else:
            joined.append(symbols[place])
            place += 1
    return tuple(joined)


def learn_merges(texts: Iterable[str], *, count: int) -> list[Merge]:
    """The `count` most frequent merges in order, ties by spelling; fewer once every word is one symbol."""
    alphabet = byte_alphabet()
    words: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        for word in _WORD.findall(text.lower()):
            symbols = [alphabet[byte] for byte in word.encode("utf-8")]
            words[(*symbols[:-1], symbols[-1] + END_OF_WORD)] += 1
    merges: list[Merge] = []
    while len(merges) < count:
        pairs: Counter[Merge] = Counter()
        for symbols, times in words.items():
            for pair in pairwise(symbols):
                pairs[pair] += times
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = Counter({_join(symbols, best): times for symbols, times in words.items()})
    return merges


def vocabulary(merges: list[Merge]) -> dict[str, int]:
    """Token to id: bytes, bytes that end a word, merges, start and end of text."""
    characters = list(byte_alphabet().values())
    tokens = (
        characters + [character + END_OF_WORD for character in characters] + [a + b for a, b in merges] + [START, END]
    )
    return {token: number for number, token in enumerate(tokens)}


def write_open_clip_merges(target: Path, merges: list[Merge]) -> None:
    """Write the gzip file that open_clip's SimpleTokenizer reads (no time stamp, no last line end)."""
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    write_bytes(target, gzip.compress("\n".join(lines).encode("utf-8"), mtime=0))
