"""Token counts equal those of CLIP's own tokenizer, and need no torch.

open_clip straightens curly quotes before it counts, Stable Diffusion's tokenizer does not: the captions here have none.
"""

import subprocess
import sys

import pytest

from loupe.data.token_count import count_tokens

CAPTIONS = (
    "",
    "a photo of a cat",
    "A professional product photo of navy blue casual shoes, summer collection, men, Red Tape brand",
    "it's the shoe's lace; they'll 'd've 've",
    "1234567890 12.5% #hashtag @brand!!! ...",
    "naïve café — € ½",
    "Schuhe für Männer, größe 42, größtmöglicher Donaudampfschifffahrtskapitän",
    "靴 кроссовки παπούτσι",
    "supercalifragilisticexpialidocious " * 12,
    "multiple   spaces\tand\nlines",
)


@pytest.mark.parametrize("caption", CAPTIONS)
def test_parity_with_the_reference_tokenizer(caption):
    from open_clip.tokenizer import SimpleTokenizer

    assert count_tokens(caption) == 2 + len(_reference(SimpleTokenizer).encode(caption))


def _reference(kind, made=[]):  # noqa: B006 - built once, it takes half a second
    if not made:
        made.append(kind())
    return made[0]


def test_counting_imports_no_torch():
    code = "import sys\nfrom loupe.data.token_count import count_tokens\ncount_tokens('a shoe')\n"
    check = "assert not {'torch', 'open_clip', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code + check], check=True)
