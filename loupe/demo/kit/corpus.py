"""The rendered pictures that the kit is trained on, with their items; cached on disk as .npy. Trains nothing.

Streams: each (stream, index) has its own generator, so no picture is shared with the held-out set nor with a
catalogue folder.
"""

from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np

from loupe.demo.catalogue import ItemSpec, render_item, sample_item
from loupe.demo.kit.settings import SIZE_PX

Stream = Literal["everyday", "catalogue", "held_out_everyday", "held_out_catalogue"]
STREAMS: dict[str, int] = {"everyday": 1, "catalogue": 2, "held_out_everyday": 3, "held_out_catalogue": 4}
SHOE_SHARE = 0.25
"""Every fourth item is a casual shoe on top of the uniform draw of types: the type that the LoRA is about."""


@dataclass(frozen=True)
class Corpus:
    """Pictures uint8 [N, H, W, 3] (read-only memory map) and their items."""

    images: np.ndarray
    items: tuple[ItemSpec, ...]


def item_rng(seed: int, stream: Stream, index: int) -> np.random.Generator:
    """The generator of one item."""
    return np.random.default_rng([seed, STREAMS[stream], index])


def make_item(index: int, *, seed: int, stream: Stream) -> ItemSpec:
    """The item at one place of a stream."""
    rng = item_rng(seed, stream, index)
    favoured = rng.random() < SHOE_SHARE
    return sample_item(rng, article_type="Casual Shoes" if favoured else None)


def _render(index: int, *, seed: int, stream: Stream) -> np.ndarray:
    look = "everyday" if "everyday" in stream else "catalogue"
    return render_item(make_item(index, seed=seed, stream=stream), look=look, size_px=SIZE_PX)


def load_corpus(folder: Path, *, seed: int, stream: Stream, count: int) -> Corpus:
    """Render `count` pictures of a stream, or map the ones rendered before."""
    path = folder / f"renders-{stream}-{seed}-{count}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_suffix(".partial")
        images = np.lib.format.open_memmap(partial_path, mode="w+", dtype=np.uint8, shape=(count, SIZE_PX, SIZE_PX, 3))
        with get_context("fork").Pool() as pool:
            work = pool.imap(partial(_render, seed=seed, stream=stream), range(count), chunksize=64)
            for index, image in enumerate(work):
                images[index] = image
        images.flush()
        partial_path.rename(path)
    items = tuple(make_item(index, seed=seed, stream=stream) for index in range(count))
    return Corpus(np.load(path, mmap_mode="r"), items)
