"""Which finished stages of a run are older than what they build on, and why, as far as files tell. It asks no DVC."""

from __future__ import annotations

from pathlib import Path

from loupe.metric_specs import local_weights
from loupe.params import checkpoint_steps
from loupe.run_params import changed_params
from loupe.run_store import RunStore

UNWATCHED = ", and DVC does not watch it"
"""How the reason ends where a plain `dvc repro` would find nothing to do."""


def stale_stages(store: RunStore) -> dict[str, str]:
    """Return stage -> why it would run again, for what parameters and manifests can tell (not for changed code)."""
    changed = changed_params(store.files, store.paths.root)
    replaced = {} if {"reference", "evaluate"} & changed.keys() else _replaced_extractors(store)
    return {**_broken_chain(store), **changed, **replaced}


def _replaced_extractors(store: RunStore) -> dict[str, str]:
    """Return why reference is stale where an extractor's file on disk was replaced since the scores were measured.

    Weights are large, so only a file that changed after the scores is hashed; `loupe check` hashes all.
    """
    params, evaluation = store.params(), store.evaluation()
    measured = store.paths.root / "data" / "evaluation" / "manifest.json"
    reference = store.files.sha256(store.paths.root / "data" / "reference" / "manifest.json")
    if params is None or evaluation is None or reference not in (None, evaluation.reference_sha256):
        return {}
    measured_with = [entry for entry in params.evaluate.extractors if entry not in evaluation.left_out]
    for entry, info in zip(measured_with, evaluation.extractors, strict=False):
        weights = local_weights(entry)
        file = None if weights is None else store.paths.root / weights
        if file is not None and _changed_after(file, measured) and store.files.sha256(file) != info.sha256:
            return {"reference": f"{entry} is not what the scores were measured with{UNWATCHED}"}
    return {}


def _changed_after(file: Path, other: Path) -> bool:
    """Whether `file` is there and was written, or put there, after `other` was written."""
    try:
        return file.stat().st_ctime_ns > other.stat().st_mtime_ns
    except OSError:
        return False


def _broken_chain(store: RunStore) -> dict[str, str]:
    """Return the stages whose manifest speaks of another input than the one that is there now."""
    found = {}
    params, checkpoints = store.params(), store.checkpoints_manifest()
    samples, evaluation, selection = store.samples_manifest(), store.evaluation(), store.selection()
    if params and checkpoints:
        planned = checkpoint_steps(params.train.max_steps, params.train.checkpoint_every)
        if tuple(c.step for c in checkpoints.checkpoints) != planned:
            found["train"] = f"params.yaml asks for the steps {', '.join(map(str, planned))}"
    if checkpoints and samples:
        drawn = (0, *(c.step for c in checkpoints.checkpoints))
        if samples.checkpoints_fingerprint != checkpoints.fingerprint or samples.steps != drawn:
            found["generate"] = "the pictures are of other checkpoints than those in data/checkpoints"
    if evaluation:
        for sha256, folder in ((evaluation.samples_sha256, "samples"), (evaluation.reference_sha256, "reference")):
            now = store.files.sha256(store.paths.root / "data" / folder / "manifest.json")
            if now is not None and now != sha256:
                found["evaluate"] = f"the scores were measured on an earlier data/{folder}"
    if checkpoints and selection and selection.step not in {0, *(c.step for c in checkpoints.checkpoints)}:
        found["select"] = f"it recommends step {selection.step}, which is not in data/checkpoints"
    return found
