"""The Overview page: what to ship and why, the state of the run, pictures, scores, curves, and the final result.

It shows what RunStore reads and computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from dashboard.components.checkpoint_strips import checkpoint_strips
from dashboard.components.curves import loss_chart, reference_key, score_chart
from dashboard.components.kept_charts import show_chart
from dashboard.components.markup import facts, reasoned, stage_rail, state_banner
from dashboard.current_run import current_store
from loupe.evaluation_records import EvaluationManifest
from loupe.final_html import final_note, final_table, gates_on_test
from loupe.nearest_html import NEAREST_NOTE, nearest_pairs, nearest_table
from loupe.paths import SPLITS
from loupe.run_scores import MetricColumn
from loupe.run_state import RunState, run_state
from loupe.run_store import RunStore
from loupe.score_html import score_table
from loupe.wording import direction, step_label

STRIP_PROMPTS = 8
STRIP_SIDE_PX = 128
CHARTS_PER_LINE = 3
TARGETS = {"fid": "FID below", "clip_score": "CLIP score above", "inception_score": "Inception Score above"}
DEMO_NOTE = (
    "Scores marked (demo) come from this project's own small models. They are not FID, CLIP score or Inception Score; "
    "their values can be compared only inside this project."
)
LOSS_NOTE = (
    "The loss mixes random timesteps and measures no quality: pictures get better while it hardly moves. "
    "Dotted lines mark the checkpoints."
)


def show(store: RunStore) -> None:
    """Show the page."""
    state = run_state(store)
    st.html(_headline(store, state) + stage_rail(state) + state_banner(state))
    _show_strips(store)
    _show_scores(store)
    _show_final(store)
    _show_curves(store)
    _show_nearest(store)
    _show_training(store)


def _headline(store: RunStore, state: RunState) -> str:
    selection = store.selection()
    if selection:
        title = f"Ship {step_label(selection.step).lower()}" if selection.verdict == "selected" else "No clear winner"
        failed = gates_on_test(store.final(), selection)
        reason = reasoned(selection.reason) + (f'<p class="lp-caution">{escape(failed)}</p>' if failed else "")
    elif state.kind == "absent":
        title, reason = (
            "Nothing to review yet",
            "<p>One command makes everything, from the data to the recommendation.</p>",
        )
    else:
        waiting = [stage.name for stage in state.stages if stage.status in ("missing", "corrupt", "running")]
        title = "No recommendation yet"
        reason = f"<p>It still needs {', '.join(waiting)}. What is there already is shown below.</p>"
    is_old = selection and next(stage.status for stage in state.stages if stage.name == "select") != "done"
    chip = '<span class="lp-chip old">from an earlier run</span>' if is_old else ""
    return f'<header class="lp-headline"><h1>{title}{chip}</h1>{reason}{facts(_settings(store))}</header>'


def _settings(store: RunStore) -> dict[str, str]:
    params, dataset = store.params(), store.dataset()
    settings = {}
    if params:
        settings["Base model"] = params.model.base
        settings["Adapter"] = f"rank {params.train.rank}, alpha {params.train.alpha:g}"
        settings["Learning rate"] = f"{params.train.learning_rate:g}"
        settings["Guidance"] = (
            f"{params.generate.guidance_scale:g}, {params.generate.num_inference_steps} sampler steps"
        )
    if dataset:
        settings["Examples"] = ", ".join(f"{dataset.n_examples.get(split, 0)} {split}" for split in SPLITS)
    return settings


def _show_strips(store: RunStore) -> None:
    prompts, steps = store.prompts()[:STRIP_PROMPTS], store.steps()
    if not prompts or not steps:
        return
    manifest = store.samples_manifest()
    st.html(
        "<h2>Same prompt, same seed, checkpoint by checkpoint</h2>"
        + checkpoint_strips(
            prompts,
            steps,
            list(store.samples(prompt_ids={prompt.prompt_id for prompt in prompts}, seed_indices={0})),
            side_px=STRIP_SIDE_PX,
            natural_px=manifest.width_px if manifest else STRIP_SIDE_PX,
            selection=store.selection(),
        )
    )


def _show_scores(store: RunStore) -> None:
    rows, evaluation = store.scores(), store.evaluation()
    if not rows:
        return
    absent = evaluation.absent if evaluation else {}
    metrics, selection = store.metrics(), store.selection()
    headline = _headline_metrics(metrics)
    st.html(f"<h2>Scores</h2>{score_table(rows, headline, selection, absent)}{_score_notes(evaluation)}")
    if len(headline) < len(metrics):
        with st.expander(f"All {len(metrics)} scores"):
            st.html(score_table(rows, metrics, selection, absent))


def _headline_metrics(metrics: Sequence[MetricColumn]) -> tuple[MetricColumn, ...]:
    return tuple(column for column in metrics if column.spec.headline)


def _score_notes(evaluation: EvaluationManifest | None) -> str:
    notes = []
    if evaluation is None:
        notes.append("The evidence behind these scores is not on this machine. To make it anew: dvc repro evaluate")
    else:
        named = [
            f"{e.name} ({e.role}, {e.kind.replace('_', ' ')}, SHA-256 {e.sha256[:12]}…)" for e in evaluation.extractors
        ]
        notes.append(f"Measured by {' and '.join(named)}, against {evaluation.n_real} real validation photos.")
        if any(extractor.kind == "domain_trained" for extractor in evaluation.extractors):
            notes.append(DEMO_NOTE)
        if evaluation.unmeasured_targets:
            asked = ", ".join(f"{TARGETS[name]} {target:g}" for name, target in evaluation.unmeasured_targets.items())
            notes.append(f"params.yaml asks for {asked}; no extractor of this run gives that score.")
        notes += [f"Note: {finding}." for finding in evaluation.findings]
    return f'<p class="lp-note">{" ".join(escape(note) for note in notes)}</p>'


def _show_curves(store: RunStore) -> None:
    rows, metrics, selection = store.scores(), _headline_metrics(store.metrics()), store.selection()
    if len(rows) < 2:
        return
    st.html("<h2>Scores over the training steps</h2>")
    for start in range(0, len(metrics), CHARTS_PER_LINE):
        for place, column in zip(st.columns(CHARTS_PER_LINE), metrics[start : start + CHARTS_PER_LINE], strict=False):
            key = reference_key(column)
            note = f"{direction(column.spec)}{f'; {key}' if key else ''}"
            with place:
                st.html(f'<h3 class="lp-chart">{escape(column.spec.label)}<small>{escape(note)}</small></h3>')
                show_chart(store, column.spec.key, score_chart, column, rows, selection, alt_text=column.spec.label)


def _show_nearest(store: RunStore) -> None:
    pairs = nearest_pairs(store)
    if not pairs:
        return
    st.html(f'<h2>Nearest training photos</h2><p class="lp-note">{NEAREST_NOTE}</p>')
    flagged = sum(pair.flagged for pair in pairs)
    with st.expander(f"The {len(pairs)} nearest pairs, {flagged or 'none'} flagged", expanded=bool(flagged)):
        st.html(nearest_table(pairs))


def _show_training(store: RunStore) -> None:
    curve = store.train_curve()
    if not curve:
        return
    st.html(f'<h2>Training loss</h2><p class="lp-note">{LOSS_NOTE}</p>')
    show_chart(store, "loss", loss_chart, curve, store.checkpoints(), alt_text="Training loss over the steps")


def _show_final(store: RunStore) -> None:
    final = store.final()
    if not final:
        return
    note, table = escape(final_note(final, store.looks())), final_table(final | store.final_scores())
    st.html(f'<h2>Final result on the test split</h2><p class="lp-note">{note}</p>{table}')


show(current_store())
