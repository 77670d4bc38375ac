"""Which parameters a trial may change, what they may become, and the command that queues it. It runs nothing.

Only numbers, switches and named choices are offered: texts and paths stay a matter of params.yaml. What reaches the
command is written from checked values, never copied from what somebody typed.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

from loupe.errors import PipelineError, nearest_names, problems_message
from loupe.param_types import Section
from loupe.params import Params, checked_params
from loupe.train_params import TARGET_PRESETS

MAX_TRIALS = 24
"""A grid of more values than this is a mistake more often than a wish."""
_PRESETS = {"train.target_modules": TARGET_PRESETS}
Value = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Knob:
    """One parameter that a trial may change."""

    name: str
    """Dotted, e.g. 'train.rank'."""
    kind: Literal["whole number", "number", "choice"]
    now: str
    """As params.yaml has it."""
    meaning: str
    choices: tuple[str, ...]
    """What a choice may be; () for numbers."""
    takes_null: bool


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """Trials that have been checked."""

    values: Mapping[str, tuple[str, ...]]
    """Parameter -> its values as they are written into the command; every combination is a trial."""
    count: int


def knobs(params: Params) -> tuple[Knob, ...]:
    """Return what a trial may change, in the order of params.yaml."""
    return tuple(_knobs_of(params, ""))


def plan_trials(params: Params, asked: Mapping[str, str]) -> TrialPlan:
    """Return the trials that these texts ask for: parameter -> values, separated by commas.

    Each combination must be a valid params.yaml, and one of them must differ from this one. Raises PipelineError with
    every problem.
    """
    if not asked:
        raise PipelineError("A trial must change something: choose a parameter.")
    known = {knob.name: knob for knob in knobs(params)}
    problems: list[str] = []
    values: dict[str, list[Value]] = {}
    for name, text in asked.items():
        if name not in known:
            near = nearest_names(name, known, limit=1)
            problems.append(f"{name}: cannot be changed here{f'; did you mean {near[0]}?' if near else ''}")
            continue
        try:
            values[name] = _values(known[name], text)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise PipelineError(problems_message("The trial", problems))
    combinations = list(product(*values.values()))
    if len(combinations) > MAX_TRIALS:
        raise PipelineError(f"These are {len(combinations)} trials; at most {MAX_TRIALS} can be queued at once.")
    checked = [_checked(params, dict(zip(values, combination, strict=True))) for combination in combinations]
    if all(trial == params for trial in checked):
        raise PipelineError("This trial changes nothing: params.yaml has these values already.")
    written = {name: tuple(map(written_value, several)) for name, several in values.items()}
    return TrialPlan(written, len(combinations))


def queue_command(plan: TrialPlan) -> list[str]:
    """Return `dvc exp run --queue -S ...` as a list of arguments."""
    settings = [f"{name}={','.join(values)}" for name, values in plan.values.items()]
    return ["dvc", "exp", "run", "--queue", *(word for setting in settings for word in ("-S", setting))]


def written_value(value: Value) -> str:
    """Return a value as it stands in the command: null, true, 16, 0.0003, attention."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _knobs_of(section: Section, prefix: str) -> Iterator[Knob]:
    for field, info in type(section).model_fields.items():
        name, value = f"{prefix}{field}", getattr(section, field)
        if isinstance(value, Section):
            yield from _knobs_of(value, f"{name}.")
            continue
        offered = _PRESETS.get(name) or _offered(info.annotation)
        if offered is None or isinstance(value, tuple):
            continue
        named = isinstance(offered, tuple)
        yield Knob(
            name=name,
            kind="choice" if named else "whole number" if offered is int else "number",
            now=written_value(value),
            meaning=" ".join((info.description or "").split()),
            choices=tuple(map(written_value, offered)) if named else (),
            takes_null=types.NoneType in typing.get_args(info.annotation),
        )


def _offered(annotation: Any) -> type[int] | type[float] | tuple[Value, ...] | None:
    """Return int, float, or the choices; None for what a form does not offer."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    options = [o for o in typing.get_args(annotation) if o is not types.NoneType] if is_union else [annotation]
    if len(options) != 1:
        return None
    kind = typing.get_args(options[0])[0] if typing.get_origin(options[0]) is Annotated else options[0]
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)
    if kind is bool:
        return True, False
    return kind if kind in (int, float) else None


def _values(knob: Knob, text: str) -> list[Value]:
    cells = [cell.strip() for cell in text.split(",")]
    if not all(cells):
        raise ValueError("needs a value" if len(cells) == 1 else "has an empty value between its commas")
    values = [_value(knob, cell) for cell in cells]
    if len(set(values)) != len(values):
        raise ValueError("names a value twice")
    return values


def _value(knob: Knob, cell: str) -> Value:
    if knob.takes_null and cell == "null":
        return None
    if knob.kind == "choice":
        if cell not in knob.choices:
            raise ValueError(f"must be one of {', '.join(knob.choices)} (got {cell!r})")
        return {"true": True, "false": False}.get(cell, cell)
    try:
        return int(cell) if knob.kind == "whole number" else float(cell)
    except ValueError:
        raise ValueError(f"must be a {knob.kind}{' or null' if knob.takes_null else ''} (got {cell!r})") from None


def _checked(params: Params, changes: Mapping[str, Value]) -> Params:
    document = params.model_dump(mode="json")
    for name, value in changes.items():
        *sections, field = name.split(".")
        place = document
        for section in sections:
            place = place[section]
        place[field] = value
    said = ", ".join(f"{name}={written_value(value)}" for name, value in changes.items())
    return checked_params(document, source=f"A trial with {said}")
