"""Resumable training states in the work store, one file per step, and why a run could not go on from an earlier one.

A state is one safetensors file, renamed into place whole, so a kill at any moment leaves the last one intact. What
decides the weights is in the key, so a state can be used by every run that finds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loupe.atomic_io import write_json
from loupe.diffusion.tensor_files import KEY_ENTRY, hashed_bytes, read_hashed
from loupe.diffusion.training import TrainingState
from loupe.records import TrainRow
from loupe.workstore import WorkStore, fingerprint, remove_entry

if TYPE_CHECKING:
    import torch

KIND = "train"
_SUFFIX = ".safetensors"
_INTERIM_SUFFIX = ".interim.safetensors"
_PARTS_SUFFIX = ".json"
_STATE_NAME = re.compile(r"-(?P<step>[0-9]{6}|[1-9][0-9]{6,})(\.interim)?\.safetensors")
"""What save() writes after the key, and nothing else."""
_HASH = re.compile(r"[0-9a-f]{64}")
_TENSOR_GROUPS = ("adapter", "average", "optimizer")


@dataclass(frozen=True, slots=True)
class TrainStore:
    """The states of one training run; `parts` is everything that decides its weights."""

    store: WorkStore
    parts: dict[str, Any]

    @property
    def key(self) -> str:
        """Fingerprint of the parts."""
        return fingerprint(self.parts)

    @contextmanager
    def lock(self, *, waits: bool = True) -> Iterator[None]:
        """Hold this run alone; a second trainer of the same run waits (see WorkStore), then finds everything stored."""
        with self.store.lock(KIND, self.key, waits=waits):
            for left_by_a_kill in self.store.path(KIND, self.key).parent.glob(f".{self.key}*"):
                left_by_a_kill.unlink()
            yield

    def usable_steps(self) -> list[int]:
        """Return the steps whose state is stored whole, ascending; a damaged one is removed, which is said."""
        usable = []
        for step, path in sorted(self._files().items()):
            try:
                _from_file(path, step, self.key)
                usable.append(step)
            except ValueError as error:
                print(f"train: the stored state of step {step} is damaged ({error}); it is computed anew.", flush=True)
                remove_entry(path)
        return usable

    def save(self, state: TrainingState, *, interim: bool = False) -> None:
        """Store a state. An interim one lasts only until the next state is stored; others stay."""
        parts_file = self.store.path(KIND, self.key, _PARTS_SUFFIX)
        if not parts_file.exists():
            write_json(parts_file, self.parts)
        outdated = [path for path in self._files().values() if path.name.endswith(_INTERIM_SUFFIX)]
        suffix = f"-{state.step:06d}{_INTERIM_SUFFIX if interim else _SUFFIX}"
        with self.store.put(KIND, self.key, suffix) as temporary:
            temporary.write_bytes(_to_bytes(state, self.key))
        for path in outdated:
            path.unlink(missing_ok=True)

    def keep(self, steps: Iterable[int]) -> None:
        """Let the states of `steps` stay that are stored as interim ones only: another cadence had come by there."""
        files = self._files()
        for path in [files[step] for step in steps if step in files]:
            if path.name.endswith(_INTERIM_SUFFIX):
                path.replace(path.with_name(path.name.removesuffix(_INTERIM_SUFFIX) + _SUFFIX))

    def load(self, step: int) -> TrainingState:
        """Return the state of a step that usable_steps() has named or save() has stored."""
        return _from_file(self._files()[step], step, self.key)

    def _files(self) -> dict[int, Path]:
        """Step -> file; where a step has both, the one that stays. A copy that somebody put beside them is none."""
        folder = self.store.path(KIND, self.key).parent
        found = sorted(folder.glob(f"{self.key}-*{_SUFFIX}"), key=lambda path: not path.name.endswith(_INTERIM_SUFFIX))
        named = [(_STATE_NAME.fullmatch(path.name.removeprefix(self.key)), path) for path in found]
        return {int(match["step"]): path for match, path in named if match}

    def differences(self) -> list[str]:
        """Return what differs from the most recent other run in the store, e.g. 'learning_rate: 0.001 -> 0.0005'."""
        others = [p for p in (self.store.root / KIND).glob(f"*/*{_PARTS_SUFFIX}") if p.stem != self.key]
        if not others:
            return []
        latest = max(others, key=lambda path: path.lstat().st_mtime_ns)
        try:
            before = json.loads(latest.read_bytes())
        except (ValueError, OSError):
            return []  # damaged by hand: it decides nothing, and what differs from it cannot be told
        return _differences(before, self.parts) if isinstance(before, dict) else []


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            lines.append(f"{prefix}{name}: {_short(old)} -> {_short(new)}")
    return lines


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if _HASH.fullmatch(text) else text


def _to_bytes(state: TrainingState, key: str) -> bytes:
    import torch

    tensors = {f"{group}/{key}": t for group in _TENSOR_GROUPS for key, t in getattr(state, group).items()}
    for column in TrainRow.model_fields:
        tensors[f"rows/{column}"] = torch.tensor([getattr(row, column) for row in state.rows], dtype=torch.float64)
    return hashed_bytes(tensors, metadata={"scaler": json.dumps(state.scaler), KEY_ENTRY: key})


def _from_file(path: Path, step: int, key: str) -> TrainingState:
    """Read the state of a step back; anything but a whole one of that step, of the run `key`, raises ValueError."""
    try:
        state = _read(path, key)
    except KeyError as error:
        raise ValueError(f"{error} is not as it should be") from None
    if state.step != step:
        raise ValueError(f"it is that of step {state.step}")
    return state


def _read(path: Path, key: str) -> TrainingState:
    tensors, metadata = read_hashed(path, key=key)
    groups: dict[str, dict[str, torch.Tensor]] = {name: {} for name in (*_TENSOR_GROUPS, "rows")}
    for name, tensor in tensors.items():
        group, _, name_in_group = name.partition("/")
        groups[group][name_in_group] = tensor
    columns = [groups["rows"][column].tolist() for column in TrainRow.model_fields]
    rows = tuple(TrainRow(**dict(zip(TrainRow.model_fields, row, strict=True))) for row in zip(*columns, strict=True))
    return TrainingState(
        groups["adapter"], groups["average"], groups["optimizer"], json.loads(metadata["scaler"]), rows
    )
