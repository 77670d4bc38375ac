"""Safetensors whose bytes depend on nothing but their contents, and reading them with a user's error.

The safetensors library writes several metadata entries in a random order, so two equal files would differ in their
hashes; here the header is written with sorted keys. It knows no meaning of any tensor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.errors import PipelineError

if TYPE_CHECKING:
    import torch

_LENGTH_BYTES = 8


def tensor_bytes(tensors: Mapping[str, torch.Tensor], *, metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file with the given metadata; equal contents give equal bytes, in any process."""
    from safetensors.torch import save

    content = save({name: tensors[name].contiguous() for name in sorted(tensors)}, metadata=dict(metadata))
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    canonical += b" " * (-len(canonical) % _LENGTH_BYTES)  # tensor data starts on a multiple of 8, as the format asks
    return len(canonical).to_bytes(_LENGTH_BYTES, "little") + canonical + content[_LENGTH_BYTES + length :]


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
