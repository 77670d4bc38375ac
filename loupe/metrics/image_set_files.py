"""Image sets on disk: one safetensors file per role beside a manifest. It decides nothing about what is measured."""

from __future__ import annotations

import json
from pathlib import Path

from numpy.typing import NDArray

from loupe.atomic_io import atomic_path, sha256_file
from loupe.errors import PipelineError
from loupe.metrics.image_set import ImageSet


def write_arrays(path: Path, arrays: dict[str, NDArray], metadata: dict[str, str] | None = None) -> str:
    """Write named arrays as one safetensors file, atomically; return its SHA-256."""
    from safetensors.numpy import save_file

    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata=metadata)
    return sha256_file(path)


def write_image_set(folder: Path, name: str, images: ImageSet) -> dict[str, str]:
    """Write `<name>-<role>.safetensors` per role that has arrays; return file name -> SHA-256.

    Tensor names lose their role (`inception.features` becomes `features`); the metadata entry `cells` holds the rows'
    names as JSON.
    """
    by_role: dict[str, dict[str, NDArray]] = {}
    for full_name, array in images.arrays.items():
        role, _, short_name = full_name.partition(".")
        by_role.setdefault(role, {})[short_name] = array
    metadata = {"cells": json.dumps(images.cells)}
    return {
        f"{name}-{role}.safetensors": write_arrays(folder / f"{name}-{role}.safetensors", arrays, metadata)
        for role, arrays in by_role.items()
    }


def read_arrays(
    folder: Path, file_name: str, sha256: str, *, made_by: str
) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Return the arrays and metadata of a file that its manifest names; PipelineError when it is not that file."""
    from safetensors import SafetensorError, safe_open

    path = folder / file_name
    if not path.is_file() or sha256_file(path) != sha256:
        state = "does not match its manifest" if path.is_file() else "is not there"
        raise PipelineError(f"{path} {state}. Make it anew: dvc repro --force {made_by}")
    try:
        with safe_open(path, framework="np") as file:
            tensor_names = file.keys()
            return {key: file.get_tensor(key) for key in tensor_names}, file.metadata() or {}
    except SafetensorError as error:
        raise PipelineError(f"{path} cannot be read: {error}. Make it anew: dvc repro --force {made_by}") from None


def read_image_set(folder: Path, name: str, files: dict[str, str], *, made_by: str) -> ImageSet:
    """Read what `write_image_set` wrote; `files` is the manifest's file name -> SHA-256."""
    arrays: dict[str, NDArray] = {}
    cells: tuple[tuple[str, int], ...] = ()
    for file_name, sha256 in files.items():
        if not file_name.startswith(f"{name}-"):
            continue
        role = file_name.removeprefix(f"{name}-").removesuffix(".safetensors")
        tensors, metadata = read_arrays(folder, file_name, sha256, made_by=made_by)
        arrays.update({f"{role}.{short_name}": array for short_name, array in tensors.items()})
        cells = tuple((str(cell), int(index)) for cell, index in json.loads(metadata["cells"]))
    if not arrays:
        raise PipelineError(f"{folder} holds no features of {name}. Make them anew: dvc repro --force {made_by}")
    return ImageSet(cells=cells, arrays=arrays)
