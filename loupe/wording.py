"""How numbers, steps and directions are written for people. It makes no HTML."""

from __future__ import annotations

import re

from loupe.metric_specs import MetricSpec, known_specs
from loupe.records import BASE_STEP

DIRECTIONS = {
    "higher": ("↑", "higher is better"),
    "lower": ("↓", "lower is better"),
    "closer to real": ("→", "closer to the real photos is better"),
    "zero": ("0", "zero is the aim"),
}


def step_label(step: int) -> str:
    """Return how a checkpoint is called: 'Base model' or 'Step 300'."""
    return "Base model" if step == BASE_STEP else f"Step {step}"


def decision_and_why(reason: str) -> tuple[str, tuple[str, ...]]:
    """Return a recommendation's reason as its decision (one sentence) and the sentences behind it.

    Checkpoints and metrics are named as pages name them: step-000300 is step 300, cmmd_demo its label.
    """
    said = re.sub(r"\bstep-0*(\d+)\b", lambda found: step_label(int(found[1])).lower(), reason)
    said = re.sub(r"\b[a-z]\w*_\w+\b", _label, said)
    said = re.sub(r"(?<=[\s(\[])-(?=\d)", "\N{MINUS SIGN}", said)
    first, *rest = re.split(r"(?<=[.!?]) (?=[A-Z])", said.strip())
    return first[:1].upper() + first[1:], tuple(sentence[:1].upper() + sentence[1:] for sentence in rest)


def _label(found: re.Match[str]) -> str:
    spec = known_specs([found[0]]).get(found[0])
    return spec.label if spec else found[0]


def number(value: float, *, unit: str = "", signed: bool = False) -> str:
    """Return a value with about three significant digits; a share as per cent, with a true minus sign."""
    sign = "+" if signed else ""
    if unit == "share":
        text = f"{100 * value:{sign}.0f} %"
    else:
        size = abs(value)
        digits = 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 1 else 3
        text = f"{value:{sign}.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def interval(lo: float, hi: float, *, unit: str = "", signed: bool = False) -> str:
    """Return '12.1 to 13.4'."""
    return f"{number(lo, unit=unit, signed=signed)} to {number(hi, unit=unit, signed=signed)}"


def direction(spec: MetricSpec) -> str:
    """Return e.g. '↓ lower is better'."""
    return " ".join(DIRECTIONS[spec.better])


def duration(seconds: float) -> str:
    """Return '45 s', '3 min' or '2 h 10 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
