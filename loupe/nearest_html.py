"""The pictures of a run that lie nearest to single training photos, as a table to judge by eye.

No measure finds every copy (see loupe/metrics/memorisation.py), so the nearest are named whether or not one is flagged.
It computes no distance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from loupe.records import PromptRecord
from loupe.run_files import Cells
from loupe.run_samples import SampleKey
from loupe.run_store import RunStore
from loupe.wording import number, step_label

MOST_PAIRS = 20
NEAREST_NOTE = (
    "The pictures of base model and checkpoints that lie nearest to a single training photo, nearest first: look "
    "whether they are copies. A distance of 0 is the photo itself; flagged is what lies nearer than all but 5 % of the "
    "validation photos do."
)


@dataclass(frozen=True, slots=True)
class NearPair:
    """A picture and the training photo that lies nearest to it."""

    step: int
    prompt: str
    """Its text; its id where that is not known."""
    file: str
    """Of the picture, in data/samples."""
    photo: str
    """Image id of the training photo."""
    distance: float
    """Euclidean, in the features of the first extractor of pictures."""
    flagged: bool


def nearest_pairs(store: RunStore) -> tuple[NearPair, ...]:
    """Return the MOST_PAIRS nearest pairs of metrics/per_image.csv, nearest first; () where it names no photos."""
    return store.files.derived("nearest pairs", _nearest, store.per_image(), store.prompts())


def nearest_table(pairs: Sequence[NearPair]) -> str:
    """Return the table; '' without pairs."""
    if not pairs:
        return ""
    texts = "".join(f'<th scope="col" class="text">{name}</th>' for name in ("Prompt", "Picture", "Nearest photo"))
    head = f'<th scope="col">Checkpoint</th>{texts}<th scope="col">Distance</th>'
    return (
        f'<div class="lp-scroll"><table class="lp-scores"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(map(_row, pairs))}</tbody></table></div>"
    )


def _row(pair: NearPair) -> str:
    flag = '<small class="gate">flagged</small>' if pair.flagged else ""
    shown = "".join(f'<td class="text">{escape(text)}</td>' for text in (pair.prompt, pair.file, pair.photo))
    return f'<tr><th scope="row">{step_label(pair.step)}</th>{shown}<td>{number(pair.distance)}{flag}</td></tr>'


def _nearest(per_image: Mapping[SampleKey, Cells], prompts: Sequence[PromptRecord]) -> tuple[NearPair, ...]:
    known = [
        (distance, step, prompt_id, seed_index, row)
        for (prompt_id, seed_index, step), row in per_image.items()
        if isinstance(distance := row.get("nearest_train_distance"), float) and row.get("nearest_train")
    ]
    texts = {prompt.prompt_id: prompt.text for prompt in prompts}
    return tuple(
        NearPair(
            step=step,
            prompt=texts.get(prompt_id, prompt_id),
            file=str(row.get("file") or ""),
            photo=str(row["nearest_train"]),
            distance=distance,
            flagged=row.get("memorised") == 1,
        )
        for distance, step, prompt_id, _, row in sorted(known, key=lambda pair: pair[:4])[:MOST_PAIRS]
    )
