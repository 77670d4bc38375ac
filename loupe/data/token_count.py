"""Counts the tokens of a caption as CLIP's text encoder does, without importing torch.

Only the byte-pair merges of CLIP's vocabulary are needed, which come with open_clip; the rest of that package is left
alone. It counts; it makes no token ids.
"""

from __future__ import annotations

import gzip
import importlib.util
import unicodedata
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

CONTEXT_LENGTH = 77
"""Tokens that Stable Diffusion 1.x reads, the start and the end token included."""
_MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
_N_MERGES = 49152 - 256 - 2
_END_OF_WORD = "</w>"
_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def count_tokens(caption: str) -> int:
    """Return the number of tokens with start and end token; above CONTEXT_LENGTH the caption's end is not read."""
    import regex

    text = unicodedata.normalize("NFC", caption).lower()
    return 2 + sum(_count_pieces(word) for word in regex.findall(_PATTERN, text))


@lru_cache(maxsize=100_000)
def _count_pieces(word: str) -> int:
    """Merge the word's bytes as byte-pair encoding does (Sennrich et al. 2016) and count what is left."""
    ranks = _merge_ranks()
    symbols = [_byte_symbols()[byte] for byte in word.encode("utf-8")]
    symbols[-1] += _END_OF_WORD
    while len(symbols) > 1:
        pairs = list(pairwise(symbols))
        best = min(pairs, key=lambda pair: ranks.get(pair, _N_MERGES))
        if best not in ranks:
            break
        merged = []
        place = 0
        while place < len(symbols):
            if place + 1 < len(symbols) and (symbols[place], symbols[place + 1]) == best:
                merged.append("".join(best))
                place += 2
            else:
                merged.append(symbols[place])
                place += 1
        symbols = merged
    return len(symbols)


@lru_cache(maxsize=1)
def _merge_ranks() -> dict[tuple[str, str], int]:
    package = importlib.util.find_spec("open_clip")
    assert package is not None and package.submodule_search_locations, "open_clip_torch is a dependency of the project"
    path = Path(package.submodule_search_locations[0]) / _MERGES_FILE
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : 1 + _N_MERGES]
    pairs = (line.split() for line in lines)
    return {(left, right): rank for rank, (left, right) in enumerate(pairs)}


@lru_cache(maxsize=1)
def _byte_symbols() -> dict[int, str]:
    """Map every byte to the printable character that stands for it in the vocabulary file."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    symbols = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in symbols:
            symbols[byte] = chr(256 + len(symbols) - len(printable))
    return symbols
