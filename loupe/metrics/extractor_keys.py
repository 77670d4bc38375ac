"""What decides the features of a network: the key under which the work store keeps them. It loads no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loupe.evaluation_records import ExtractorInfo
from loupe.workstore import fingerprint, library_versions, source_fingerprint

HERE = Path(__file__).parent
CODE = {
    "pixel_measures.py": ("background.py", "colour_families.py", "images.py", "pixel_measures.py", "silhouette.py"),
    "demo_classifier.py": ("networks.py", "images.py", "demo_classifier.py", "classifier.py"),
    "inception.py": ("networks.py", "images.py", "inception.py"),
    "clip.py": ("networks.py", "images.py", "clip.py", "clip_settings.py"),
    "transformer_networks.py": ("networks.py", "images.py", "transformer_networks.py", "transformer_models.py"),
}
"""Module that measures -> the modules that decide what it says, which are in the key of what is stored."""
ROWS_ON_CPU, ROWS_ON_GPU = 8, 32
"""Rows of every call of a network: kernels round by batch shape, and evaluate.batch_size changes no bit."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where networks run, and what of it can change the last bits of a feature."""

    device: str
    """cpu, cuda or mps."""
    identity: str

    @property
    def rows(self) -> int:
        """How many rows every call of a network has."""
        return ROWS_ON_CPU if self.device == "cpu" else ROWS_ON_GPU


@dataclass(frozen=True, slots=True)
class ExtractorKey:
    """How an extractor's features are told from those of any other."""

    kind: str
    """Of the work store; it names everything that decides the features besides the image."""
    surroundings: str
    """Of its settings files and libraries, which DVC does not watch; neither our code nor the machine is in it."""


def extractor_key(
    info: ExtractorInfo,
    machine: Machine,
    module: str,
    *,
    libraries: Sequence[str],
    settings_files: Sequence[Path] = (),
    **settings: Any,
) -> ExtractorKey:
    """Return the key of what `module` says with these settings; the extractor's name decides no feature."""
    parts = {"info": info.model_dump(), "machine": machine.identity, "rows": machine.rows, **settings}
    around = {"files": source_fingerprint(*settings_files), "libraries": _releases(libraries), **settings}
    return ExtractorKey(
        kind=_store_kind(info.role, parts, [*_code(module), *settings_files], libraries),
        surroundings=fingerprint(around)[:32],
    )


def pixel_measure_kind() -> str:
    """Return the work store's kind of what is measured from pixels without a network."""
    return _store_kind("pixels", {}, _code("pixel_measures.py"), ("numpy", "pillow", "scipy"))


def _code(module: str) -> list[Path]:
    return [HERE / name for name in CODE[module]]


def _releases(libraries: Sequence[str]) -> dict[str, str]:
    """Return the versions without what they were built for: 2.15.0 of 2.15.0+cpu."""
    return {name: found.partition("+")[0] for name, found in library_versions(*libraries).items()}


def _store_kind(role: str, parts: Mapping[str, Any], code: Sequence[Path], libraries: Sequence[str]) -> str:
    everything = {**parts, "code": source_fingerprint(*code), "libraries": library_versions(*libraries)}
    return f"features/{role}-{fingerprint(everything)[:32]}"
