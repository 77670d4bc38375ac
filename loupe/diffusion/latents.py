"""Encoding images and captions once: the VAE's posterior per image and the text encoder's vectors per caption.

Each result is stored under everything that decides it, so encoding again costs only what is new. Mean and standard
deviation are kept rather than a sample, so every epoch can draw its own. A mirrored photo is encoded by itself: the VAE
does not give the mirror image of the photo's latents. It never reads the test split.
"""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.diffusion.cpu_shares import each_by_itself, n_at_once
from loupe.diffusion.device_memory import FREE_MEMORY, Portions
from loupe.diffusion.tensor_files import KEY_ENTRY, hashed_bytes, read_hashed
from loupe.diffusion.text import TEXTS_AT_ONCE_GPU, embed_all
from loupe.errors import PipelineError
from loupe.records import CaptionRecord
from loupe.workstore import WorkStore, fingerprint, library_versions, remove_entry, source_fingerprint

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTokenizer

POSTERIOR_KIND = "posteriors"
EMBEDDING_KIND = "text_embeddings"
ENCODE_DTYPE = "float32"
STORED_SUFFIX = ".safetensors"
_DECIDING_CODE = ("cpu_shares.py", "device.py", "latents.py", "model_loading.py", "text.py")
_TRANSFORM = "RGB uint8 / 127.5 - 1"
_MIRRORED = f"{_TRANSFORM}, left to right"
_MAX_NAMED = 10
IMAGES_AT_ONCE_GPU = 8
SMALL_SIDE_PX = 256
"""A larger image alone keeps all cores of a CPU busy, and takes memory of which there should be only one."""


@dataclass(frozen=True, slots=True)
class PhotoView:
    """A photo as training may see it: as it is, or mirrored left to right."""

    record: CaptionRecord
    mirrored: bool = False


def views(records: Iterable[CaptionRecord], *, mirrored_too: bool) -> list[PhotoView]:
    """Return each photo as it is, then, if `mirrored_too`, each one mirrored."""
    photos = list(records)
    sides = (False, True) if mirrored_too else (False,)
    return [PhotoView(record, mirrored) for mirrored in sides for record in photos]


@dataclass(frozen=True, slots=True)
class EncodeKeys:
    """The part of every key that all images and captions share; encoding is float32 on every device."""

    base_sha256: str
    machine: str
    resolution_px: int
    versions: dict[str, str]
    source: str

    def posterior(self, view: PhotoView) -> str:
        """Return the key of a photo's posterior, as it is or mirrored."""
        return fingerprint(
            {
                "image": view.record.sha256,
                "transform": _MIRRORED if view.mirrored else _TRANSFORM,
                "resolution_px": self.resolution_px,
                **self._shared(),
            }
        )

    def embedding(self, caption: str) -> str:
        """Return the key of a caption's vectors."""
        return fingerprint({"caption": caption, **self._shared()})

    def _shared(self) -> dict[str, object]:
        return {
            "base": self.base_sha256,
            "machine": self.machine,
            "dtype": ENCODE_DTYPE,
            "versions": self.versions,
            "source": self.source,
        }


def encode_keys(*, base_sha256: str, machine: str, resolution_px: int) -> EncodeKeys:
    """Return the keys of this base model on this machine (device_identity) with the present libraries and code."""
    here = Path(__file__)
    return EncodeKeys(
        base_sha256=base_sha256,
        machine=machine,
        resolution_px=resolution_px,
        versions=library_versions("torch", "diffusers", "transformers", "tokenizers", "pillow"),
        source=source_fingerprint(*(here.with_name(name) for name in _DECIDING_CODE)),
    )


def new_images(wanted: Iterable[PhotoView], *, keys: EncodeKeys, store: WorkStore) -> list[PhotoView]:
    """Return the views whose posterior is not stored whole yet; of several of the same picture, one."""
    one_each = {keys.posterior(view): view for view in wanted}
    return [view for key, view in one_each.items() if not _is_stored(store, POSTERIOR_KIND, key)]


def new_captions(captions: Iterable[str], *, keys: EncodeKeys, store: WorkStore) -> list[str]:
    """Return the captions whose vectors are not stored whole yet."""
    return [caption for caption in captions if not _is_stored(store, EMBEDDING_KIND, keys.embedding(caption))]


def _is_stored(store: WorkStore, kind: str, key: str) -> bool:
    """Say whether an entry is there and sound; a damaged one is removed, which is said."""
    path = store.get(kind, key, STORED_SUFFIX)
    if path is None:
        return False
    try:
        read_hashed(path, key=key)
    except ValueError as error:
        print(f"encode: a stored entry of {kind} is damaged ({error}); it is computed anew.", flush=True)
        remove_entry(path)
        return False
    return True


def encode_images(
    wanted: Sequence[PhotoView], *, vae: AutoencoderKL, dataset: Path, keys: EncodeKeys, store: WorkStore
) -> Iterator[str]:
    """Store the posterior of each view and yield its id; `dataset` is the folder that records' files are relative to.

    On the CPU every image by itself, so the bits do not depend on neighbours, small ones several at the same time; on a
    GPU a few together, fewer where its memory is full, while the next are read and the last are written. Memory stays
    flat. Raises DeviceFull where it does not hold one, and PipelineError, after the last image, naming every one whose
    posterior is not finite; none of those is stored.
    """
    encode = _encode_together if vae.device.type == "cuda" else _encode_each
    broken: dict[str, None] = {}
    for view, is_finite in encode(wanted, vae=vae, dataset=dataset, keys=keys, store=store):
        if not is_finite:
            broken[view.record.image_id] = None
        yield view.record.image_id
    if broken:
        raise PipelineError(
            f"The VAE gives values that are not finite for {len(broken)} images: {_listing(list(broken))}. "
            f"Look at these images; if they are sound, the VAE's weights are not."
        )


def _encode_each(
    wanted: Sequence[PhotoView], *, vae: AutoencoderKL, dataset: Path, keys: EncodeKeys, store: WorkStore
) -> Iterator[tuple[PhotoView, bool]]:
    import torch

    def encode(view: PhotoView) -> tuple[PhotoView, bool]:
        pixels = _read(view, dataset=dataset, side_px=keys.resolution_px)
        (posterior,) = encode_pixels(vae, pixels[None])
        return view, _put_finite(store, keys.posterior(view), posterior)

    are_small = keys.resolution_px <= SMALL_SIDE_PX and vae.device.type == "cpu"  # MPS bears no threads
    at_once = n_at_once(n_threads=torch.get_num_threads()) if are_small else 1
    return each_by_itself(encode, wanted, n_at_once=at_once)


def _encode_together(
    wanted: Sequence[PhotoView], *, vae: AutoencoderKL, dataset: Path, keys: EncodeKeys, store: WorkStore
) -> Iterator[tuple[PhotoView, bool]]:
    import torch

    writes: deque[tuple[PhotoView, Future[bool]]] = deque()
    portions = Portions(IMAGES_AT_ONCE_GPU, vae.device.type, f"Lower data.resolution. {FREE_MEMORY}")
    with ThreadPoolExecutor(IMAGES_AT_ONCE_GPU, thread_name_prefix="read-and-write") as pool:
        read = partial(_read, dataset=dataset, side_px=keys.resolution_px)
        groups = [wanted[start : start + IMAGES_AT_ONCE_GPU] for start in range(0, len(wanted), IMAGES_AT_ONCE_GPU)]
        ahead = [pool.submit(read, view) for view in chain.from_iterable(groups[:1])]
        for number, group in enumerate(groups, start=1):
            pixels = torch.stack([reading.result() for reading in ahead])
            ahead = [pool.submit(read, view) for view in chain.from_iterable(groups[number : number + 1])]
            posteriors = portions.results(len(group), lambda a, b, pixels=pixels: encode_pixels(vae, pixels[a:b]))
            for view, posterior in zip(group, posteriors, strict=True):
                writes.append((view, pool.submit(_put_finite, store, keys.posterior(view), posterior)))
            while len(writes) > IMAGES_AT_ONCE_GPU:
                view, written = writes.popleft()
                yield view, written.result()
        for view, written in writes:
            yield view, written.result()


def _put_finite(store: WorkStore, key: str, posterior: dict[str, torch.Tensor]) -> bool:
    """Store a posterior, unless it has a value that is not finite; return whether it was stored."""
    is_finite = all(bool(tensor.isfinite().all()) for tensor in posterior.values())
    if is_finite:
        _put(store, POSTERIOR_KIND, key, posterior)
    return is_finite


def encode_captions(
    captions: Sequence[str],
    *,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    keys: EncodeKeys,
    store: WorkStore,
) -> Iterator[str]:
    """Store the text encoder's vectors of each caption and yield the caption; not finite ones are a PipelineError."""
    for start in range(0, len(captions), TEXTS_AT_ONCE_GPU):
        group = captions[start : start + TEXTS_AT_ONCE_GPU]
        vectors = embed_all(group, tokenizer=tokenizer, text_encoder=text_encoder)
        for caption, embedding in zip(group, vectors, strict=True):
            if not bool(embedding.isfinite().all()):
                raise PipelineError(f"The text encoder gives values that are not finite for the caption {caption!r}.")
            _put(store, EMBEDDING_KIND, keys.embedding(caption), {"embedding": embedding.clone()})
            yield caption


def encode_pixels(vae: AutoencoderKL, pixels_B3HW: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """Return for each image in [-1, 1] mean and std [C, h, w], float32 on the CPU, of its unscaled posterior."""
    import torch

    with torch.inference_mode():
        posterior = vae.encode(pixels_B3HW.to(vae.device, vae.dtype)).latent_dist
        means, stds = posterior.mean.float().cpu(), posterior.std.float().cpu()
    return [{"mean": mean.clone(), "std": std.clone()} for mean, std in zip(means, stds, strict=True)]


def _read(view: PhotoView, *, dataset: Path, side_px: int) -> torch.Tensor:
    pixels = read_pixels(dataset / view.record.file, sha256=view.record.sha256, side_px=side_px)
    return pixels.flip(-1) if view.mirrored else pixels


def read_pixels(path: Path, *, sha256: str, side_px: int) -> torch.Tensor:
    """Return a prepared image [3, side, side] float32 in [-1, 1]; a changed or missing file is a PipelineError."""
    import numpy as np
    import torch
    from PIL import Image

    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PipelineError(f"{path} is not there. Run: dvc repro --force prepare") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PipelineError(f"{path} has changed since it was prepared. Run: dvc repro --force prepare")
    with Image.open(io.BytesIO(content)) as image:
        if image.mode != "RGB" or image.size != (side_px, side_px):
            found = f"{image.mode} {image.width} x {image.height}"
            raise PipelineError(f"{path} is {found} px; expected RGB {side_px} x {side_px}. Run: dvc repro prepare")
        pixels = np.asarray(image)
    return torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(2, 0, 1).contiguous()


def read_stored(store: WorkStore, kind: str, key: str) -> dict[str, torch.Tensor]:
    """Return a stored result; one that was damaged since it was looked for is named (PipelineError)."""
    path = store.path(kind, key, STORED_SUFFIX)
    try:
        return read_hashed(path, key=key)[0]
    except ValueError as error:
        raise PipelineError(f"{path} is damaged ({error}). Run it again: it is computed anew.") from None


def _put(store: WorkStore, kind: str, key: str, tensors: dict[str, torch.Tensor]) -> None:
    with store.put(kind, key, STORED_SUFFIX) as temporary:
        temporary.write_bytes(hashed_bytes(tensors, metadata={KEY_ENTRY: key}))


def _listing(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
