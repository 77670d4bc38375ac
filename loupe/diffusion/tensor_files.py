"""Safetensors whose bytes depend on nothing but their contents, and reading them with a user's error.

The safetensors library writes several metadata entries in a random order, so two equal files would differ in their
hashes; here the header is written with sorted keys. It knows no meaning of any tensor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.errors import PipelineError

if TYPE_CHECKING:
    import torch

_LENGTH_BYTES = 8
_HASH_ENTRY = "sha256"
KEY_ENTRY = "key"
"""Metadata of a stored file: the key under which it was stored, so that a copy under another one is told."""


def tensor_bytes(tensors: Mapping[str, torch.Tensor], *, metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file with the given metadata; equal contents give equal bytes, in any process."""
    from safetensors.torch import save

    content = save({name: tensors[name].contiguous() for name in sorted(tensors)}, metadata=dict(metadata))
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    canonical += b" " * (-len(canonical) % _LENGTH_BYTES)  # tensor data starts on a multiple of 8, as the format asks
    data = memoryview(content)[_LENGTH_BYTES + length :]  # a slice of bytes would be one more copy of a large state
    return b"".join((len(canonical).to_bytes(_LENGTH_BYTES, "little"), canonical, data))


def read_tensors(path: Path, *, made_by: str) -> dict[str, torch.Tensor]:
    """Read a file to the CPU; an absent or damaged one is a PipelineError that names the stage which makes it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise PipelineError(f"{path} is not there. Run: dvc repro {made_by}") from None
    except SafetensorError as error:
        raise PipelineError(f"{path} is damaged ({error}). Make it anew: dvc repro --force {made_by}") from None


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return a hash of named CPU tensors, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def hashed_bytes(tensors: Mapping[str, torch.Tensor], *, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return a safetensors file that holds the hash of its own tensors and metadata, for `read_hashed`."""
    metadata = dict(metadata or {})
    return tensor_bytes(tensors, metadata={**metadata, _HASH_ENTRY: _contents_sha256(tensors, metadata)})


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata in a safetensors file's header; ValueError when there is no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(str(error)) from None


def read_hashed(path: Path, *, key: str | None = None) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return tensors and metadata of a file of `hashed_bytes`; anything but the whole of one raises ValueError.

    So does one that was stored under another key than `key`, where it says under which.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise ValueError(str(error)) from None
    stored = metadata.pop(_HASH_ENTRY, None)
    if _contents_sha256(tensors, metadata) != stored:
        raise ValueError("its contents have changed")
    if key is not None and metadata.get(KEY_ENTRY, key) != key:
        raise ValueError("it is that of another entry")
    return tensors, metadata


def _contents_sha256(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    of_tensors = tensors_sha256(tensors)
    if not metadata:  # as in the files that the work store already holds
        return of_tensors
    return hashlib.sha256(json.dumps([of_tensors, metadata], sort_keys=True).encode()).hexdigest()
