"""The first half of `loupe check`, which takes seconds: are parameters, data, base model, prompts and scorers there,
and are weights outside the project still those of the results.

How a run would go is tried in preflight_trial.py. It writes nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.errors import PipelineError, problems_message
from loupe.evaluation_records import EvaluationManifest, ReferenceManifest
from loupe.launch import LAUNCH_VARIABLE
from loupe.metric_specs import MEASURE_ANEW
from loupe.params import Params, checkpoint_steps
from loupe.paths import ProjectPaths
from loupe.records import CheckpointsManifest, LatentsManifest
from loupe.run_files import RunFiles
from loupe.run_params import changed_params

if TYPE_CHECKING:
    from loupe.diffusion.device import DevicePolicy
    from loupe.diffusion.processes import AskedProcesses
    from loupe.metrics.extractors import Extractors

ENCODE_ANEW = "dvc repro --force --single-item encode && dvc repro"
TRAIN_ANEW = "dvc repro --force --single-item train && dvc repro"
SCORE_ANEW = "dvc repro --force --single-item evaluate && dvc repro"


def check_parts(params: Params, paths: ProjectPaths, *, params_file: Path) -> tuple[Path | None, DevicePolicy]:
    """Print what was found; return the base model's folder, None where it is still to be downloaded, and the device.

    It downloads nothing. Raises PipelineError, naming all that is missing or wrong.
    """
    from loupe.diffusion.base_model import base_model_on_disk
    from loupe.diffusion.device import choose_device, device_identity
    from loupe.diffusion.hub import DOWNLOAD_SIZE
    from loupe.metrics.extractor_keys import Machine
    from loupe.metrics.extractors import resolve_extractors

    problems = []
    policy = choose_device()
    data = paths.root / Path(params.data.root).expanduser()
    if not data.is_dir():
        problems.append(f"data.root: there is no folder {data}")
    try:
        base = base_model_on_disk(params.model.base, params.model.revision, demo_folder=paths.demo)
        if base is not None:
            require_prompts_fit(params, base)
    except PipelineError as error:
        problems.append(str(error))
    evaluate, machine = params.evaluate, Machine(policy.device, device_identity(policy))
    try:
        scorers = resolve_extractors(evaluate.extractors, demo_folder=paths.demo, machine=machine)
        problems += scorers.left_out.values()
    except PipelineError as error:
        problems.append(str(error))
    if problems:
        raise PipelineError(problems_message(str(params_file), problems))
    if unwatched := [*_other_dtype(paths, policy), *_replaced_weights(params, paths, base, scorers)]:
        raise PipelineError(problems_message(str(params_file), unwatched))
    steps = checkpoint_steps(params.train.max_steps, params.train.checkpoint_every)
    to_come = f"still to be downloaded from the Hub ({DOWNLOAD_SIZE}), by the first stage that needs it"
    say("base model", f"{params.model.base}, {f'whole, in {base}' if base else to_come}")
    say("data", f"{params.data.source} from {data}")
    say("device", policy.reason)
    if params.train.train_text_encoder:
        kind = f"rank {params.train.rank}, alpha {params.train.alpha:g}"
        say("adapters", f"of the UNet and of the text encoder, which is trained with it: {kind} each")
    say("scorers", ", ".join(info.name for info in scorers.infos))
    say("checkpoints", ", ".join(map(str, steps)))
    n_each = pictures_per_checkpoint(params)
    say("pictures", f"{n_each} for the base model and for each checkpoint, {n_each * (len(steps) + 1)} in all")
    return base, policy


def whole_base_model(params: Params, paths: ProjectPaths) -> Path:
    """Return the base model's folder; the trial needs its weights, so they are downloaded where they are absent.

    Raises PipelineError as resolve_base_model, and when a prompt is too long for it.
    """
    from loupe.diffusion.base_model import resolve_base_model

    base = resolve_base_model(params.model.base, params.model.revision, demo_folder=paths.demo)
    require_prompts_fit(params, base)
    return base


def require_prompts_fit(params: Params, base: Path) -> None:
    """Raise PipelineError when a prompt is longer than the base model's text encoder reads."""
    from loupe.diffusion.model_loading import load_tokenizer
    from loupe.diffusion.prompts import check_prompt_lengths, fixed_prompts

    prompts = fixed_prompts(params.generate.prompts, known_colours=())
    check_prompt_lengths(load_tokenizer(base), prompts, negative_prompt=params.generate.negative_prompt)


def _other_dtype(paths: ProjectPaths, policy: DevicePolicy) -> list[str]:
    """Return that the environment asks for another dtype than that of the adapters here; DVC knows nothing of it.

    A dtype that is merely this machine's own is no reason: results are looked at on other machines, too.
    """
    from loupe.diffusion.device import DTYPE_VARIABLE

    files = RunFiles(paths.root)
    trained = files.record(paths.checkpoints / "manifest.json", CheckpointsManifest, made_by="train")
    if not os.environ.get(DTYPE_VARIABLE, "").strip() or trained is None or trained.dtype == policy.dtype_name:
        return []
    if not (paths.root / "dvc.lock").is_file() or "train" in changed_params(files, paths.root):
        return []
    return [
        f"{DTYPE_VARIABLE} asks for {policy.dtype_name}, the adapters in data/checkpoints were trained in "
        f"{trained.dtype}, and DVC does not watch it. Unset it, or train anew: {TRAIN_ANEW}"
    ]


def _replaced_weights(params: Params, paths: ProjectPaths, base: Path | None, scorers: Extractors) -> list[str]:
    """Return what lies outside the project and is not what the results here were made with.

    DVC watches what lies inside, and runs a stage again whose parameters changed; of the rest it knows nothing.
    """
    from loupe.diffusion.base_model import DEMO, base_model_info
    from loupe.metrics.extractors import DEMO as DEMO_ENTRY
    from loupe.metrics.extractors import DEMO_CLIP_ENTRY

    problems, files = [], RunFiles(paths.root)
    if not (paths.root / "dvc.lock").is_file():
        return problems
    runs_again = changed_params(files, paths.root)
    latents = files.record(paths.latents / "manifest.json", LatentsManifest, made_by="encode")
    name = params.model.base
    if latents and base and "encode" not in runs_again and name != DEMO and Path(name).expanduser().is_dir():
        now = base_model_info(base, name=name, revision=params.model.revision).sha256
        if now != latents.base_model.sha256:
            problems.append(
                f"model.base: {name} is not what data/latents and the adapters were made with "
                f"({latents.base_model.sha256[:12]}, now {now[:12]}), and DVC does not watch it. Make them anew: "
                f"{ENCODE_ANEW}"
            )
    reference = files.record(paths.reference / "manifest.json", ReferenceManifest, made_by="reference")
    if reference and "reference" not in runs_again:
        evaluation = files.record(paths.evaluation / "manifest.json", EvaluationManifest, made_by="evaluate")
        scored_without = evaluation.left_out if evaluation and "evaluate" not in runs_again else ()
        late = dict.fromkeys(scored_without, SCORE_ANEW)
        late |= dict.fromkeys(reference.left_out, MEASURE_ANEW)
        problems += [
            f"evaluate.extractors: {entry} was not there when the scores were measured, and DVC does not watch it. "
            f"Measure anew: {command}"
            for entry, command in late.items()
        ]
        measured = [entry for entry in params.evaluate.extractors if entry not in reference.left_out]
        present = dict(zip(scorers.entries, scorers.infos, strict=True))
        for entry, before in zip(measured, reference.extractors, strict=False):
            now = present[entry]
            if before.sha256 != now.sha256 and entry not in (DEMO_ENTRY, DEMO_CLIP_ENTRY):
                problems.append(
                    f"evaluate.extractors: {entry} is not what data/reference and the scores were measured with "
                    f"({before.sha256[:12]}, now {now.sha256[:12]}), and DVC does not watch it. Measure anew: "
                    f"{MEASURE_ANEW}"
                )
        problems += _other_surroundings(reference, scorers)
    return problems


def _other_surroundings(reference: ReferenceManifest, scorers: Extractors) -> list[str]:
    """Return the extractors whose settings files or libraries changed; the demo's files are watched by DVC."""
    from loupe.metrics.extractors import DEMO, DEMO_CLIP_ENTRY

    members = {e: m for e, m in zip(scorers.entries, scorers.members, strict=True) if e not in (DEMO, DEMO_CLIP_ENTRY)}
    return [
        f"evaluate.extractors: the settings files of {entry}, or the versions of its libraries, are not those that "
        f"data/reference was measured with, and DVC does not watch them. Measure anew: {MEASURE_ANEW}"
        for entry, member in members.items()
        if reference.surroundings.get(member.info.name, member.key.surroundings) != member.key.surroundings
    ]


def pictures_per_checkpoint(params: Params) -> int:
    """Return how many pictures `generate` draws with each checkpoint."""
    return (len(params.generate.prompts) + params.generate.val_captions) * params.generate.seeds_per_prompt


def say(label: str, text: str) -> None:
    """Print one line of the report, at once: what comes next may take a while."""
    print(f"{label:<12} {text}", flush=True)


def told_processes(asked: AskedProcesses, photos_each: int, *, device: str) -> str:
    """Return what several processes mean for the numbers of the trial, which is of one of them."""
    total = asked.count * photos_each
    told = f"{asked.count}, as {LAUNCH_VARIABLE} asks: a step takes {asked.count} x {photos_each} = {total} photos"
    if device == "cpu":
        return f"{told}; one is tried, with the cores that {asked.on_this_machine} will share: all will take longer"
    return f"{told}; one is tried, and what they say to each other is not timed"


def duration(seconds: float) -> str:
    """Return e.g. '3.2 min'."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
