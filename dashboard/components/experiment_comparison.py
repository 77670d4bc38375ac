"""Two experiments side by side: the parameters that differ, their scores, and their pictures prompt by prompt.

Pictures come from git and DVC's cache without checking anything out. A click opens both large.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import streamlit as st

from dashboard.components.experiment_table import of_equal_numbers, summary_specs, value_html
from dashboard.components.large_view import large_view, picture_facts
from dashboard.components.wall_of_two import wall_of_two
from loupe.errors import PipelineError
from loupe.experiments import Experiment, differing, samples_at, show_pictures_at
from loupe.records import PromptRecord, SamplesManifest
from loupe.run_store import RunStore
from loupe.vote_html import vote_table
from loupe.wording import DIRECTIONS, number, step_label

PROMPTS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two, with the step and the pictures that are looked at."""

    row: Experiment
    manifest: SamplesManifest
    step: int
    pictures: Mapping[str, str | None]
    """Prompt id -> SHA-256; None where the picture is not here."""
    seeds: Mapping[str, int]
    """Prompt id -> seed of the initial noise."""

    @property
    def title(self) -> str:
        return f"{self.row.name}, {step_label(self.step).lower()}"


def compare_two(store: RunStore, rows: Sequence[Experiment]) -> None:
    """Show the choice of two finished rows and what sets them apart; nothing where there are fewer."""
    finished = [row for row in rows if not row.state]
    n_of_name = Counter(row.name for row in finished)
    # Experiments of two commits may bear one name.
    by_name = {row.name if n_of_name[row.name] == 1 else f"{row.name} {row.rev[:7]}": row for row in finished}
    if len(by_name) < 2:
        return
    st.html("<h2>Two side by side</h2>")
    names = list(by_name)
    trials = [name for name in names if by_name[name].kind == "experiment"]
    left, right = st.columns(2)
    first = by_name[trials[0]].baseline if trials else names[1]
    start = (names.index(first) if first in names else 1, names.index(trials[0]) if trials else 0)
    one = by_name[left.selectbox("A", names, index=start[0], key="one", bind="query-params")]
    other = by_name[right.selectbox("B", names, index=start[1], key="other", bind="query-params")]
    if one.rev == other.rev:
        st.html('<p class="lp-empty">Choose two different ones.</p>')
        return
    st.html(_parameters(one, other))
    _show_pictures(store, one, other)
    st.html(_scores(one, other))


def _parameters(one: Experiment, other: Experiment) -> str:
    lines = [
        (escape(name), value_html(before), value_html(after))
        for name, (before, after) in differing(one.params, other.params).items()
    ]
    table = vote_table(("", "A", "B"), lines) if lines else '<p class="lp-note">They have the same parameters.</p>'
    return f'<h3 class="lp-chart">Parameters that differ</h3>{table}'


def _scores(one: Experiment, other: Experiment) -> str:
    lines = []
    for spec in summary_specs((one, other)):
        key = f"{spec.key}_last"
        pair = [row.scores.get(key) for row in (one, other)]
        if pair == [None, None] or not (spec.headline or spec.criterion):
            continue
        if None in pair:
            change = "–"
        elif of_equal_numbers((one, other), spec):
            change = number(pair[1] - pair[0], unit=spec.unit, signed=True)
        else:
            change = "<small>of other numbers of pictures</small>"
        cells = ("–" if value is None else number(value, unit=spec.unit) for value in pair)
        lines.append((f"{escape(spec.label)}<small>{DIRECTIONS[spec.better][1]}</small>", *cells, change))
    if not lines:
        return '<h3 class="lp-chart">Scores</h3><p class="lp-note">Neither has any.</p>'
    head = ("", "A", "B", "B − A")
    return f'<h3 class="lp-chart">Scores of the last checkpoint</h3>{vote_table(head, lines)}'


def _show_pictures(store: RunStore, one: Experiment, other: Experiment) -> None:
    try:
        manifests = [_manifest(store, row) for row in (one, other)]
    except PipelineError as error:
        st.html(f'<p class="lp-empty">{escape(str(error))}</p>')
        return
    n_seeds = min(manifest.seeds_per_prompt for manifest in manifests)
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        steps = [
            _choose_step(manifest, letter, row.name)
            for letter, row, manifest in zip("ab", (one, other), manifests, strict=True)
        ]
        seed = 0
        if n_seeds > 1:
            seed = st.pills("Seed", list(range(n_seeds)), key="seed", default=0, bind="query-params", required=True)
    seed = seed or 0
    sides = [
        _side(store, row, manifest, step=step, seed_index=seed)
        for row, manifest, step in zip((one, other), manifests, steps, strict=True)
    ]
    shared = _shared_prompts(sides)
    if not shared:
        st.html('<p class="lp-empty">The two have no prompt in common.</p>')
        return
    shown = shared[:PROMPTS_SHOWN]
    more = f" The first {PROMPTS_SHOWN} of {len(shared)} prompts." if len(shared) > PROMPTS_SHOWN else ""
    named = f"A is {escape(sides[0].title)}; B is {escape(sides[1].title)}."
    pictures, side_px = [side.pictures for side in sides], manifests[0].width_px
    st.html(
        f'<p class="lp-note">{_what_is_same(sides, shared)} {named} Click a picture to wipe between the two.{more}</p>'
        + wall_of_two(shown, pictures[0], pictures[1], titles=("A", "B"), side_px=side_px, seed_index=seed)
    )
    large_view(_large_facts(sides, [p.prompt_id for p in shown], seed_index=seed))


def _choose_step(manifest: SamplesManifest, letter: str, name: str) -> int:
    steps = {step_label(step): step for step in manifest.steps}
    label = f"Checkpoint of {letter.upper()}: {name}"
    chosen = st.selectbox(
        label, list(steps), index=len(steps) - 1, key=f"step_{letter}", bind="query-params", width=300
    )
    return steps[chosen]


def _shared_prompts(sides: Sequence[_Side]) -> list[PromptRecord]:
    """Return the prompts that both have pictures of; one id may name another text in another revision."""
    other = {prompt.prompt_id: prompt.text for prompt in sides[1].manifest.prompts}
    return [
        prompt
        for prompt in sides[0].manifest.prompts
        if all(prompt.prompt_id in side.pictures for side in sides) and other.get(prompt.prompt_id) == prompt.text
    ]


def _what_is_same(sides: Sequence[_Side], shared: Sequence[PromptRecord]) -> str:
    if all(sides[0].seeds[prompt.prompt_id] == sides[1].seeds[prompt.prompt_id] for prompt in shared):
        return "Same prompt, same seed."
    return "Same prompt, but other initial noise: part of what differs is chance."


def _side(store: RunStore, row: Experiment, manifest: SamplesManifest, *, step: int, seed_index: int) -> _Side:
    samples = [s for s in manifest.samples if s.step == step and s.seed_index == seed_index]
    there = (
        {s.sha256 for s in samples if s.sha256 and store.sample_file(s.sha256)}
        if row.kind == "workspace"
        else show_pictures_at(store, row.rev, samples)
    )
    pictures = {s.prompt_id: s.sha256 if s.sha256 in there else None for s in samples}
    return _Side(row, manifest, step, pictures, {s.prompt_id: s.seed for s in samples})


def _manifest(store: RunStore, row: Experiment) -> SamplesManifest:
    if row.kind != "workspace":
        return samples_at(store.paths.root, row.rev)
    manifest = store.samples_manifest()
    if manifest is None:
        raise PipelineError("The workspace has no finished pictures. To draw them: dvc repro generate")
    return manifest


def _large_facts(sides: Sequence[_Side], prompt_ids: Sequence[str], *, seed_index: int) -> dict[str, Any]:
    """Return what the large view needs: two columns, A and B, in place of checkpoints."""
    natural_px = sides[0].manifest.width_px
    texts = {prompt.prompt_id: prompt.text for prompt in sides[0].manifest.prompts}
    rows = [
        {
            "id": f"{prompt_id}-{seed_index}", "prompt_id": prompt_id, "prompt": texts[prompt_id],
            "seed_index": seed_index, "seed": _seed_of(sides, prompt_id), "command": None,
            "cells": {name: _large_cell(side, prompt_id, natural_px) for name, side in zip("AB", sides, strict=True)},
        }
        for prompt_id in prompt_ids
    ]  # fmt: skip
    steps = [{"name": name, "label": side.title} for name, side in zip("AB", sides, strict=True)]
    return {"rows": rows, "steps": steps, "against_base": "B", "natural_px": natural_px, "page": 1, "n_pages": 1}


def _seed_of(sides: Sequence[_Side], prompt_id: str) -> str | None:
    """Return the seed as text, as picture rows have it; None where the two have different ones."""
    one, other = (side.seeds[prompt_id] for side in sides)
    return str(one) if one == other else None


def _large_cell(side: _Side, prompt_id: str, natural_px: int) -> dict[str, Any]:
    sha256 = side.pictures[prompt_id]
    reason = "" if sha256 else "DVC's cache no longer holds this picture."
    return picture_facts(sha256, None, (), (), natural_px=natural_px) | {"reason": reason, "step": str(side.step)}
