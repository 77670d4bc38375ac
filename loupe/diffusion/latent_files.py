"""The files of data/latents: gathering what was encoded into one per split, and reading it back as training examples.

Images and captions are paired through the image's own row, never through the order of a loop. See LatentsManifest for
names and shapes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.atomic_io import atomic_path, read_record, sha256_file
from loupe.diffusion.base_model import context_length
from loupe.diffusion.latents import EMBEDDING_KIND, POSTERIOR_KIND, EncodeKeys, read_stored, views
from loupe.diffusion.model_loading import load_tokenizer
from loupe.diffusion.tensor_files import read_tensors
from loupe.diffusion.text import token_ids
from loupe.errors import PipelineError
from loupe.records import BaseModelInfo, CaptionRecord, LatentsManifest
from loupe.workstore import WorkStore

if TYPE_CHECKING:
    import torch

ENCODED_SPLITS = ("train", "val")
EMPTY_CAPTION = ""
EMPTY_ROW = 0
TEXT_FILE = "text.safetensors"
TOKENS_FILE = "tokens.safetensors"
MIRRORED = "mirrored_"


@dataclass(frozen=True, slots=True)
class Posteriors:
    """The VAE's unscaled posterior of every photo of a split: `mean` and `std` [N, C, h, w] float32."""

    mean: torch.Tensor
    std: torch.Tensor


@dataclass(frozen=True, slots=True)
class Examples:
    """A split in memory: per image the unscaled posterior and the row of its caption's vectors.

    `mean` and `std` [N, C, h, w], `caption_index` [N] int64 into `embeddings` [U, T, D] (row 0: the empty caption),
    float32, all on the CPU; row i belongs to `image_ids[i]`.
    """

    image_ids: tuple[str, ...]
    mean: torch.Tensor
    std: torch.Tensor
    caption_index: torch.Tensor
    embeddings: torch.Tensor
    token_ids: torch.Tensor | None = None
    """[U, T] int64, the tokens whose vectors `embeddings` are; only there for training the text encoder."""
    mirrored: Posteriors | None = None
    """Of the same photos mirrored left to right; only there for training with random flips."""

    def sha256(self) -> str:
        """Return a hash of everything training sees of these examples: ids, posteriors, and their captions' vectors.

        And tokens and mirrored photos' posteriors, where they are there.
        """
        digest = hashlib.sha256("\n".join(self.image_ids).encode("utf-8"))
        last_row = int(self.caption_index.max())
        texts = [rows[: last_row + 1] for rows in (self.embeddings, self.token_ids) if rows is not None]
        flipped = (self.mirrored.mean, self.mirrored.std) if self.mirrored else ()
        for tensor in (self.mean, self.std, self.caption_index, *texts, *flipped):
            digest.update(repr(tuple(tensor.shape)).encode("ascii"))
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


def read_examples(
    folder: Path, split: str, *, base: BaseModelInfo, with_tokens: bool = False, with_mirrored: bool = False
) -> Examples:
    """Read one encoded split of data/latents; with the captions' tokens for training the text encoder.

    And with the mirrored photos for training with random flips. Raises PipelineError when a file is missing, changed or
    inconsistent, was encoded with another base model or, when they are wanted, without mirrored photos.
    """
    manifest = read_record(folder / "manifest.json", LatentsManifest, made_by="encode")
    if manifest.base_model.sha256 != base.sha256:
        encoded = manifest.base_model.name
        raise PipelineError(
            f"{folder} is of the base model {encoded}, not of the present {base.name}. Run: dvc repro encode"
        )
    for name in (split_file(split), TEXT_FILE, *([TOKENS_FILE] if with_tokens else [])):
        file = folder / name
        if not file.is_file() or sha256_file(file) != manifest.files.get(name):
            raise PipelineError(f"{file} is missing or has changed since it was encoded. Run: dvc repro --force encode")
    tensors = read_tensors(folder / split_file(split), made_by="encode")
    embeddings = read_tensors(folder / TEXT_FILE, made_by="encode")["embeddings"]
    tokens = read_tensors(folder / TOKENS_FILE, made_by="encode")["token_ids"] if with_tokens else None
    image_ids = manifest.image_ids[split]
    if with_mirrored and f"{MIRRORED}mean" not in tensors:
        raise PipelineError(f"{folder} was encoded without mirrored photos (train.random_flip). Run: dvc repro encode")
    lengths = {len(image_ids), *(len(tensor) for tensor in tensors.values())}
    if len(lengths) != 1:
        raise PipelineError(f"{folder}: {split} has {sorted(lengths)} rows. Run: dvc repro --force encode")
    mirrored = Posteriors(tensors[f"{MIRRORED}mean"], tensors[f"{MIRRORED}std"]) if with_mirrored else None
    return Examples(image_ids, tensors["mean"], tensors["std"], tensors["caption_index"], embeddings, tokens, mirrored)


def distinct_captions(records_by_split: dict[str, list[CaptionRecord]]) -> dict[str, int]:
    """Return caption -> row of the text file: the empty one first, then by first use, train before val.

    So a change in val moves no row that training reads.
    """
    captions = [r.caption for split in ENCODED_SPLITS for r in records_by_split[split]]
    return {caption: row for row, caption in enumerate(dict.fromkeys([EMPTY_CAPTION, *captions]))}


def split_file(split: str) -> str:
    """Return the file name of an encoded split."""
    return f"{split}.safetensors"


def write_split(
    target: Path,
    records: Sequence[CaptionRecord],
    *,
    rows: dict[str, int],
    keys: EncodeKeys,
    store: WorkStore,
    mirrored_too: bool = False,
) -> str:
    """Gather the stored posteriors of `records` into one file and return its SHA-256; `rows` as distinct_captions.

    If `mirrored_too`, those of the mirrored photos as well.
    """
    import torch

    gathered: dict[str, torch.Tensor] = {}
    row = {record.image_id: index for index, record in enumerate(records)}
    for view in views(records, mirrored_too=mirrored_too):
        posterior = read_stored(store, POSTERIOR_KIND, keys.posterior(view))
        for name, tensor in posterior.items():
            column = f"{MIRRORED}{name}" if view.mirrored else name
            tensors = gathered.setdefault(column, torch.empty(len(records), *tensor.shape))
            tensors[row[view.record.image_id]] = tensor
    gathered["caption_index"] = torch.tensor([rows[record.caption] for record in records], dtype=torch.int64)
    return _write(target, gathered)


def write_text(folder: Path, rows: dict[str, int], *, keys: EncodeKeys, store: WorkStore) -> str:
    """Gather the stored vectors of all captions into the text file and return its SHA-256 (see LatentsManifest)."""
    import torch

    embeddings: torch.Tensor | None = None
    for caption, row in rows.items():
        stored = read_stored(store, EMBEDDING_KIND, keys.embedding(caption))["embedding"]
        if embeddings is None:
            embeddings = torch.empty(len(rows), *stored.shape)
        embeddings[row] = stored
    return _write(folder / TEXT_FILE, {"embeddings": embeddings})


def write_tokens(folder: Path, rows: dict[str, int], *, base_folder: Path) -> str:
    """Write the tokens of all captions, as the base model reads them, and return the file's SHA-256.

    `rows` as distinct_captions; the file as LatentsManifest says.
    """
    import torch

    tokenizer, length = load_tokenizer(base_folder), context_length(base_folder)
    ids = [token_ids(caption, tokenizer=tokenizer, length=length) for caption in sorted(rows, key=rows.__getitem__)]
    return _write(folder / TOKENS_FILE, {"token_ids": torch.stack(ids)})


def _write(target: Path, tensors: dict[str, torch.Tensor]) -> str:
    from safetensors.torch import save_file

    with atomic_path(target) as temporary:
        save_file(tensors, temporary)
    return sha256_file(target)
