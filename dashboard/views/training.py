"""The Training page: how the adapter learns, live while it does: losses, speed, memory, and previews per checkpoint.

It shows what is there; a run that left no telemetry or previews has fewer charts. It judges no quality: the scores on
Overview do.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import median

import altair as alt
import streamlit as st

from dashboard.components.checkpoint_strips import checkpoint_strips
from dashboard.components.curves import loss_chart, reference_key, score_chart
from dashboard.components.kept_charts import show_chart
from dashboard.components.markup import facts, headline, state_banner
from dashboard.components.training_charts import (
    line_chart,
    timestep_chart,
    validation_chart,
    validation_difference_chart,
)
from dashboard.current_run import current_store
from loupe.records import TrainRow
from loupe.run_state import run_state
from loupe.run_store import RunStore
from loupe.run_training import (
    overfitting_signs,
    preview_prompts,
    previews,
    train_telemetry,
    validation_curve,
    validation_timesteps,
)
from loupe.train_records import TelemetryRow
from loupe.wording import direction, step_label

PREVIEW_SIDE_PX = 128
LOSS_NOTE = (
    "Grey: the mean squared error of each step, on random images, timesteps and noise. Blue: its exponential moving "
    "average. It measures no quality: pictures get better while it hardly moves. Dotted lines mark the checkpoints."
)
VALIDATION_NOTE = (
    "On the validation photos with the same noise and timesteps for every checkpoint, so the points can be compared. "
    "Right: the paired difference to the base model with its 95 % interval."
)
TIMESTEP_NOTE = (
    "Where the loss falls: small timesteps are detail and texture, large ones shape and layout. One that rises while "
    "the others fall is the first sign of overfitting."
)
SIGNS_NOTE = (
    "Training goes too far where the validation loss above turns up, the distance to the real photos grows again, the "
    "pictures of one prompt grow alike, or more pictures lie near a single training photo than chance explains. None "
    "of these alone is a verdict."
)
SIGNS = ("cmmd", "kid", "diversity", "memorisation")


def show(store: RunStore) -> None:
    """Show the page."""
    state = run_state(store)
    curve, validation = store.train_curve(), validation_curve(store)
    if not curve and not validation:
        st.html(
            state_banner(state)
            + headline(
                "Nothing has been trained yet",
                "<code>dvc repro train</code> trains the adapter; this page follows it while it runs.",
            )
        )
        return
    at_work = any(stage.name == "train" and stage.status == "running" for stage in state.stages)
    last, params = curve[-1].step if curve else validation[-1].step, store.params()
    total = f" of {params.train.max_steps}" if params else ""
    title = f"Training, step {last}{total}" if at_work else f"Trained for {last} steps"
    st.html(headline(title) + facts(_facts(store)) + state_banner(state))
    _show_losses(store)
    _show_validation(store)
    _show_overfitting(store)
    _show_previews(store)
    _show_machine(store)


def _facts(store: RunStore) -> dict[str, str]:
    curve, validation, telemetry = store.train_curve(), validation_curve(store), train_telemetry(store)
    shown: dict[str, str] = {}
    if curve:
        shown["Smoothed loss"] = f"{curve[-1].loss_smoothed:.4f}"
    if validation:
        lowest = min(validation, key=lambda row: row.val_loss)
        shown["Lowest validation loss"] = f"{lowest.val_loss:.4f} at {step_label(lowest.step).lower()}"
    if telemetry:
        shown["Speed"] = f"{median(row.images_per_s for row in telemetry):.1f} images/s"
        peaks = [row.peak_memory_gb for row in telemetry if row.peak_memory_gb is not None]
        if peaks:
            shown["Peak memory"] = f"{max(peaks):.2f} GB"
    return shown


def _show_losses(store: RunStore) -> None:
    curve = store.train_curve()
    if not curve:
        return
    params = store.params()
    target = f" params.yaml asks for less than {params.evaluate.targets.train_loss:g}." if params else ""
    st.html(f'<h2>Training loss</h2><p class="lp-note">{LOSS_NOTE}{target}</p>')
    show_chart(store, "loss", loss_chart, curve, store.checkpoints(), alt_text="Training loss over the steps")
    left, right = st.columns(2)
    with left:
        _titled("Learning rate", "after warm-up and schedule")
        show_chart(store, "learning rate", _learning_rate, curve, alt_text="Learning rate")
    with right:
        _titled("Gradient norm", "global L2 norm before clipping")
        show_chart(store, "gradient norm", _gradient_norm, curve, alt_text="Gradient norm")


def _show_validation(store: RunStore) -> None:
    rows, timesteps = validation_curve(store), validation_timesteps(store)
    if rows:
        st.html(f'<h2>Validation loss</h2><p class="lp-note">{VALIDATION_NOTE}</p>')
        left, right = st.columns(2)
        with left:
            _titled(
                "At each checkpoint", f"mean over {rows[-1].n_images} photos; bars: 95 % interval; dashes: base model"
            )
            show_chart(store, "validation", validation_chart, rows, alt_text="Validation loss at each checkpoint")
        if any(row.val_loss_diff_base is not None for row in rows):
            with right:
                _titled("Difference to the base model", "bars: 95 % interval, paired by photo; dashes: no difference")
                said = "Difference of the validation loss to the base model"
                show_chart(store, "validation difference", validation_difference_chart, rows, alt_text=said)
    if timesteps:
        st.html(f'<h2>Validation loss by timestep</h2><p class="lp-note">{TIMESTEP_NOTE}</p>')
        said = "Validation loss over the timesteps, a curve per checkpoint"
        show_chart(store, "timesteps", timestep_chart, timesteps, alt_text=said)


def _show_overfitting(store: RunStore) -> None:
    """Show the signs of metrics/overfitting.csv, and the distance that `select` goes by where it is another."""
    signs, scores, selection = overfitting_signs(store), store.scores(), store.selection()
    if len(signs) < 2:
        return
    kept = {key for row in signs for key in row.scores}
    columns = sorted(
        (column for column in store.metrics() if column.spec.criterion in SIGNS),
        key=lambda column: SIGNS.index(column.spec.criterion or ""),
    )
    st.html(f'<h2>Signs of overfitting</h2><p class="lp-note">{SIGNS_NOTE}</p>')
    for start in range(0, len(columns), 2):
        for place, column in zip(st.columns(2), columns[start : start + 2], strict=False):
            key = reference_key(column)
            rows = signs if column.spec.key in kept else scores
            with place:
                _titled(escape(column.spec.label), f"{direction(column.spec)}{f'; {key}' if key else ''}")
                name = f"sign {column.spec.key}"
                show_chart(store, name, score_chart, column, rows, selection, alt_text=column.spec.label)


def _show_previews(store: RunStore) -> None:
    prompts, samples = preview_prompts(store), list(previews(store))
    samples = [sample for sample in samples if sample.seed_index == 0]
    if not prompts or not samples:
        return
    st.html(
        '<h2>Previews</h2><p class="lp-note">Drawn by the training itself at each checkpoint, same prompt and same '
        "seed. The full set for judging is on Compare.</p>"
        + checkpoint_strips(
            prompts,
            sorted({sample.step for sample in samples}),
            samples,
            side_px=PREVIEW_SIDE_PX,
            natural_px=store.params().data.resolution if store.params() else PREVIEW_SIDE_PX,
            selection=store.selection(),
        )
    )


def _show_machine(store: RunStore) -> None:
    rows = train_telemetry(store)
    if not rows:
        return
    st.html(
        '<h2>Speed and memory</h2><p class="lp-note">Of the process that trains here, or trained here last: figures '
        "of a machine, not a result.</p>"
    )
    left, right = st.columns(2)
    with left:
        _titled("Images per second", "training steps alone, without validation and previews")
        show_chart(store, "speed", _speed, rows, alt_text="Images per second")
    if any(row.peak_memory_gb is not None for row in rows):
        with right:
            _titled("Peak memory", "highest so far, 1 GB = 10⁹ bytes")
            show_chart(store, "memory", _memory, rows, alt_text="Peak memory")


def _learning_rate(curve: Sequence[TrainRow]) -> alt.Chart:
    return line_chart([(row.step, row.learning_rate) for row in curve], unit="learning rate")


def _gradient_norm(curve: Sequence[TrainRow]) -> alt.Chart:
    return line_chart([(row.step, row.grad_norm) for row in curve], unit="L2 norm")


def _speed(rows: Sequence[TelemetryRow]) -> alt.Chart:
    return line_chart([(row.step, row.images_per_s) for row in rows], unit="images/s")


def _memory(rows: Sequence[TelemetryRow]) -> alt.Chart:
    return line_chart([(row.step, row.peak_memory_gb) for row in rows], unit="GB")


def _titled(title: str, note: str) -> None:
    st.html(f'<h3 class="lp-chart">{title}<small>{note}</small></h3>')


show(current_store())
