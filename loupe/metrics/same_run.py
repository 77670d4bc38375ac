"""Whether samples belong to the checkpoints that lie beside them. It looks at manifests only."""

from __future__ import annotations

from loupe.errors import PipelineError, problems_message
from loupe.records import BASE_STEP, CheckpointsManifest, SamplesManifest


def require_same_run(samples: SamplesManifest, checkpoints: CheckpointsManifest) -> None:
    """Raise PipelineError, naming all that differs, when the samples were drawn with other checkpoints."""
    expected = (BASE_STEP, *(checkpoint.step for checkpoint in checkpoints.checkpoints))
    problems = []
    if samples.base_model.sha256 != checkpoints.base_model.sha256:
        names = f"{samples.base_model.name} ({samples.base_model.sha256[:12]})"
        beside = f"{checkpoints.base_model.name} ({checkpoints.base_model.sha256[:12]})"
        problems.append(f"the base model is {names}, that of data/checkpoints is {beside}")
    if samples.checkpoints_fingerprint != checkpoints.fingerprint:
        problems.append(
            f"the adapters are of the training {samples.checkpoints_fingerprint[:12]}, those of data/checkpoints of "
            f"{checkpoints.fingerprint[:12]}"
        )
    if samples.steps != expected:
        drawn, there = (", ".join(map(str, steps)) for steps in (samples.steps, expected))
        problems.append(f"the steps are {drawn}, those of data/checkpoints {there}")
    if problems:
        message = problems_message("data/samples was drawn in another run", problems)
        raise PipelineError(f"{message}\nDraw it anew: dvc repro generate")
