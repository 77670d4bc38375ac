"""What dvc.lock remembers of the parameters of each stage, against params.yaml as it is now. It asks no DVC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from loupe.errors import PipelineError
from loupe.run_files import Problem, RunFiles
from loupe.yaml_file import read_yaml


def changed_params(files: RunFiles, root: Path) -> dict[str, str]:
    """Return stage -> the parameters that changed since it ran; {} when either file is absent or cannot be read."""
    params_file, lock = root / "params.yaml", root / "dvc.lock"
    recorded = files.parsed(lock, "recorded parameters", partial(_recorded, lock)) or {}
    params = files.parsed(params_file, "yaml", partial(read_yaml, params_file))
    if not isinstance(params, Mapping):
        return {}
    changed = {}
    for stage, old in recorded.items():
        now = {**params, **{name: _field(params, name) for name in old if "." in name}}
        if differences := list(_differences(old, now, ())):
            more = f" and {len(differences) - 1} more" if len(differences) > 1 else ""
            changed[stage] = f"{differences[0]}{more}"
    return changed


def _field(params: Mapping[str, Any], name: str) -> Any:
    """Return a parameter that a stage depends on by its own name, e.g. train.random_flip; None where it is absent."""
    value: Any = params
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def missing_params(root: Path) -> Problem:
    """Return the problem of results without their params.yaml."""
    mend = "git checkout params.yaml" if (root / ".git").exists() else "copy it back to the results"
    return Problem("params.yaml", f"is not there, so it is unknown what these results were made with. Mend: {mend}")


def _recorded(lock: Path) -> dict[str, Mapping[str, Any]]:
    mend = f"Bring it back: git checkout {lock.name}"
    try:
        content = read_yaml(lock)
    except PipelineError as error:
        raise PipelineError(f"{error} {mend}") from None
    stages = content.get("stages") if isinstance(content, Mapping) else None
    if not isinstance(stages, Mapping) or not all(isinstance(entry, Mapping) for entry in stages.values()):
        raise PipelineError(f"{lock} holds no stages as DVC writes them. {mend}")
    found = {}
    for stage, entry in stages.items():
        params = entry.get("params")
        recorded = params.get("params.yaml") if isinstance(params, Mapping) else None
        if isinstance(recorded, Mapping):
            found[str(stage)] = recorded
    return found


def _differences(old: Any, new: Any, place: tuple[str, ...]) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = list(old) if not place else [*old, *(key for key in new if key not in old)]
        for key in keys:
            yield from _differences(old.get(key), new.get(key), (*place, str(key)))
    elif old != new:
        yield f"{'.'.join(place)} was {_short(old)}, is {_short(new)}"


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
