"""What is known of one checkpoint when one is to be chosen, and the gates it must pass. It ranks nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loupe.metric_specs import spec_of
from loupe.metrics.image_set import Array
from loupe.metrics.memorisation import memorised_bound

Row = Mapping[str, float | None]
"""A row of metrics/checkpoints.csv."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What a checkpoint gains over base in one criterion, turned so that more is better."""

    value: float
    draws: Array
    """[R], the same resamples for every checkpoint; empty when there are none."""


@dataclass(frozen=True, slots=True)
class StepEvidence:
    """What is known of one checkpoint; a score that could not be computed is None, a gain is left out."""

    step: int
    n_used: int
    invalid_count: int
    background_ok: float | None
    centred_ok: float | None
    memorised: float | None
    gains: Mapping[str, Gain]
    """Criterion -> gain over base."""
    text_gain: Gain | None
    """Gain over base in the text-image score, which is no criterion."""


@dataclass(frozen=True, slots=True)
class Gates:
    """What every recommended checkpoint must pass."""

    text_key: str
    min_background_ok: float
    min_centred_ok: float
    max_invalid: int
    max_text_loss: float | None
    """Points of the text-image score that may be lost against base; None: any."""
    memorisation_level: float
    n_held_out: int
    """Photos that the threshold for memorised pictures was taken from."""


def failed_gates(checkpoint: StepEvidence, gates: Gates, *, loses_text: bool) -> list[str]:
    """Return what the checkpoint fails, each with what was found and what is required.

    `loses_text` says that it clearly lost more of the text-image score than it may.
    """
    failed = []
    if checkpoint.invalid_count > gates.max_invalid:
        failed.append(f"{checkpoint.invalid_count} invalid pictures, allowed {gates.max_invalid}")
    if not checkpoint.n_used:
        return [*failed, "no valid picture"]
    for name, share, least in (
        ("background_ok", checkpoint.background_ok, gates.min_background_ok),
        ("centred_ok", checkpoint.centred_ok, gates.min_centred_ok),
    ):
        if share is None:
            failed.append(f"no {name}")
        elif share < least:
            failed.append(f"{name} {share:.3g}, required {least:g}")
    if checkpoint.memorised is None:
        failed.append("no share of memorised pictures")
    else:
        most = memorised_bound(checkpoint.n_used, gates.n_held_out, upper_tail=gates.memorisation_level)
        if checkpoint.memorised > most:
            found = f"{checkpoint.memorised:.3g} of the pictures near a training photo"
            failed.append(f"{found}, by chance at most {most:.3g}")
    if loses_text and checkpoint.text_gain is not None:
        lost = f"{gates.text_key} {-checkpoint.text_gain.value:.3g} below the base model's"
        failed.append(f"{lost}, allowed {gates.max_text_loss:g}")
    return failed


def shortfall(checkpoint: StepEvidence, gates: Gates) -> float:
    """Return how far below the required shares of clean borders and centred objects a checkpoint is, in parts of them.

    0 where both are reached; a share that is not known counts as 0 %.
    """
    asked = ((checkpoint.background_ok, gates.min_background_ok), (checkpoint.centred_ok, gates.min_centred_ok))
    return sum(max(0.0, 1 - (share or 0.0) / least) for share, least in asked if least > 0)


def step_evidence(row: Row, base: Row, draws: Mapping[str, NDArray], keys: Mapping[str, str]) -> StepEvidence:
    """Return the evidence of one row; `keys` is criterion -> metric key, with text, background, centring, memorisation.

    `draws` are those of scoring.draws_by_name.
    """
    step, text = int(row["step"] or 0), keys["text"]
    of_text = row.get(f"{text}_diff_base")
    gains = {}
    for name in ("distance", "clip_gap", "colour", "diversity"):
        gain = _gain(row, base, draws, keys[name]) if name in keys else None
        if gain is not None:
            gains[name] = gain
    return StepEvidence(
        step=step,
        n_used=int(row["n_used"] or 0),
        invalid_count=int(row["invalid_count"] or 0),
        background_ok=row.get(keys["background"]),
        centred_ok=row.get(keys["centring"]),
        memorised=row.get(keys["memorisation"]),
        gains=gains,
        text_gain=None if of_text is None else Gain(of_text, draws.get(f"{step}/{text}/diff_base", np.zeros(0))),
    )


def _gain(row: Row, base: Row, draws: Mapping[str, NDArray], key: str) -> Gain | None:
    step, better = int(row["step"] or 0), spec_of(key).better
    value, of_base = row.get(key), base.get(key)
    if value is None or of_base is None:
        return None
    if better == "closer to real":  # diversity: more than real photos have is no further gain
        pair = draws.get(f"{step}/{key}"), draws.get(f"0/{key}")
        both = np.zeros(0) if pair[0] is None or pair[1] is None else np.minimum(pair[0], 1) - np.minimum(pair[1], 1)
        return Gain(value=min(value, 1.0) - min(of_base, 1.0), draws=both)
    sign = -1.0 if better == "lower" else 1.0
    difference = row.get(f"{key}_diff_base")
    if difference is None:
        return None
    return Gain(value=sign * difference, draws=sign * draws.get(f"{step}/{key}/diff_base", np.zeros(0)))
