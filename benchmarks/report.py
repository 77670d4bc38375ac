"""Where measured numbers go: benchmarks/results/<machine>.json, one section per benchmark, with the versions used."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loupe.atomic_io import write_json

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate")


def machine_name() -> str:
    """Return a name such as intel-xeon-2-cpus or nvidia-h200, from what the machine says of itself."""
    import torch

    if torch.cuda.is_available():
        return _slug(torch.cuda.get_device_name())
    return _slug(f"{_processor()} {os.cpu_count()} cpus")


def keep(section: str, content: dict[str, Any]) -> Path:
    """Write a benchmark's numbers beside those of the others on this machine, and return the file."""
    file = RESULTS / f"{machine_name()}.json"
    known = json.loads(file.read_bytes()) if file.is_file() else {}
    versions = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    surroundings = {"versions": versions, "threads": _threads(), "load_average": round(os.getloadavg()[0], 2)}
    write_json(file, {**known, section: {**content, **surroundings}})
    return file


def spread(values: Sequence[float], *, digits: int = 3) -> dict[str, float]:
    """Return the median and the range of repeated measurements, in `digits` significant digits."""
    numbers = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {name: float(f"{value:.{digits}g}") for name, value in numbers.items()}


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), flags=re.M) if info.is_file() else None
    return found.group(1) if found else platform.machine()


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
