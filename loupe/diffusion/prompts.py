"""Which texts are drawn: the fixed prompts of params.yaml and a fixed choice of captions, with the colour of each.

It opens no file, so it cannot look at a split that the calling stage must not see.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from loupe.errors import PipelineError, problems_message
from loupe.records import CaptionRecord, PromptRecord, Split

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_PLAIN_ID = re.compile(r"[a-z0-9_]{1,48}")
_BACKGROUND = r"\s+(?:(?:studio|seamless|paper|plain)\s+)?(?:background|backdrop)\b"
_CAPTION_PREFIXES = ("val_", "test_")


def fixed_prompts(prompts: Mapping[str, str], *, known_colours: Iterable[str]) -> list[PromptRecord]:
    """Return the prompts of params.yaml in their order; `known_colours` are the dataset's values of `colour`."""
    colours = list(known_colours)
    return [
        PromptRecord(prompt_id=prompt_id, text=text, colour=colour_in_text(text, colours))
        for prompt_id, text in prompts.items()
    ]


def colour_in_text(text: str, known_colours: Iterable[str]) -> str | None:
    """Return the one known colour that stands in `text` as whole words, ignoring case; None for none or for several.

    A longer name wins over a shorter one inside it: 'navy blue shoes' asks for Navy Blue and not for Blue. The colour
    of a background ('on white background', 'a white studio backdrop') is not that of the product.
    """
    by_lower = {colour.lower(): colour for colour in known_colours if colour}
    if not by_lower:
        return None
    longest_first = sorted(by_lower, key=len, reverse=True)
    pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)(?!{_BACKGROUND})"
    found = set(re.findall(pattern, text.lower()))
    return by_lower[found.pop()] if len(found) == 1 else None


def caption_prompts(captions: Sequence[CaptionRecord], *, split: Split, count: int, seed: int) -> list[PromptRecord]:
    """Return `count` captions of one split as prompts, chosen by `seed` and spread over the colours.

    Round-robin over the values of attributes['colour'], the most frequent first (ties by name; examples without a
    colour count as one more value), so that the colour score sees variety; within a colour in the order of a hash of
    (seed, image id). The first n prompts of a longer choice are the shorter choice, so raising `count` draws only the
    new ones. Raises PipelineError when the split has fewer than `count` examples.
    """
    if len(captions) < count:
        raise PipelineError(
            f"{count} captions of the {split} split were asked for as prompts, but it has {len(captions)}. Lower "
            f"{'generate.val_captions' if split == 'val' else f'confirm.{split}_captions'} or prepare more examples."
        )
    return [
        PromptRecord(
            prompt_id=f"{split}_{_safe_id(record.image_id)}",
            text=record.caption,
            colour=record.attributes.get("colour"),
        )
        for record in _round_robin(captions, seed=seed)[:count]
    ]


def _round_robin(captions: Sequence[CaptionRecord], *, seed: int) -> list[CaptionRecord]:
    frequency = Counter(record.attributes.get("colour", "") for record in captions)
    colour_rank = {colour: rank for rank, colour in enumerate(sorted(frequency, key=lambda c: (-frequency[c], c)))}
    shuffled = sorted(captions, key=lambda record: (_digest(f"{seed}/{record.image_id}"), record.image_id))
    taken: Counter[str] = Counter()
    places = []
    for record in shuffled:
        colour = record.attributes.get("colour", "")
        places.append((taken[colour], colour_rank[colour], record))
        taken[colour] += 1
    return [record for _, _, record in sorted(places, key=lambda place: place[:2])]


def _safe_id(image_id: str) -> str:
    """Return an id fit for a folder name on every file system, also those that ignore case; distinct ids stay so."""
    if _PLAIN_ID.fullmatch(image_id):
        return image_id
    readable = re.sub(r"[^a-z0-9]+", "_", image_id.lower()).strip("_")[:32]
    return f"{readable}_{_digest(image_id)[:10]}".lstrip("_")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def check_prompt_lengths(tokenizer: CLIPTokenizer, prompts: Sequence[PromptRecord], *, negative_prompt: str) -> None:
    """Refuse fixed prompts that the text encoder would cut off, all at once; warn about captions that it will.

    The text encoder reads `tokenizer.model_max_length` tokens (77) and silently drops the rest. Whoever wrote a prompt
    can shorten it, hence PipelineError; a caption is what the adapter was trained on, equally cut.
    """
    limit = tokenizer.model_max_length
    written = {f"generate.prompts.{p.prompt_id}": p.text for p in prompts if not _is_caption(p)}
    written["generate.negative_prompt"] = negative_prompt
    problems = [
        f"{name}: {count} tokens, and the text encoder reads {limit}; the end would be ignored. Shorten it"
        for name, text in written.items()
        if (count := _token_count(tokenizer, text)) > limit
    ]
    if problems:
        raise PipelineError(problems_message("Prompts that are too long", problems))
    n_long = sum(_token_count(tokenizer, p.text) > limit for p in prompts if _is_caption(p))
    if n_long:
        print(f"warning: {n_long} captions used as prompts are longer than {limit} tokens; their end is ignored, as in "
              f"training.", flush=True)  # fmt: skip


def _is_caption(prompt: PromptRecord) -> bool:
    return prompt.prompt_id.startswith(_CAPTION_PREFIXES)


def _token_count(tokenizer: CLIPTokenizer, text: str) -> int:
    return len(tokenizer(text, truncation=False, verbose=False).input_ids)
