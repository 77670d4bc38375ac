"""The second half of `loupe check`: real training steps and a real picture, and what they mean for the whole run.

Memory is estimated first, so that what cannot fit is said and not tried. The numbers are of this machine and this
moment. It writes nothing.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from loupe.atomic_io import read_record
from loupe.errors import PipelineError, problems_message
from loupe.params import Params, checkpoint_steps
from loupe.paths import ProjectPaths
from loupe.preflight import duration, pictures_per_checkpoint, say, told_processes
from loupe.records import DatasetManifest

if TYPE_CHECKING:
    from loupe.diffusion.adapter import AdapterConfig
    from loupe.diffusion.device import DevicePolicy
    from loupe.diffusion.latent_files import Examples
    from loupe.diffusion.processes import AskedProcesses
    from loupe.diffusion.train_memory import MemoryPlan
    from loupe.diffusion.train_settings import TrainSettings
    from loupe.diffusion.trial_run import DrawingTrial, TrainingTrial
    from loupe.records import BaseModelInfo

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate")
ADAPTER_KNOBS = {"rank", "alpha", "target_modules", "use_dora", "use_rslora"}
GB = 1e9
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setup:
    """What training and drawing need to know."""

    params: Params
    base: Path
    info: BaseModelInfo
    policy: DevicePolicy
    settings: TrainSettings
    adapter: AdapterConfig
    examples: Examples
    examples_origin: str
    n_photos: dict[str, int]
    """Split -> prepared photos; empty as long as there are none."""
    is_encoded: bool
    """Whether training would find the photos encoded."""
    launched: AskedProcesses
    """How many processes train and draw together; one of them is tried."""

    @property
    def side_px(self) -> int:
        return self.params.data.resolution


def check_by_trial(params: Params, paths: ProjectPaths, base: Path, policy: DevicePolicy, *, params_file: Path) -> None:
    """Try training and drawing, print what came out, and raise PipelineError with all that stands against the run."""
    from loupe.diffusion.device import make_repeatable
    from loupe.diffusion.train_log import peak_memory_gb
    from loupe.diffusion.train_memory import plan_memory

    problems: list[str] = []
    setup = _set_up(params, paths, base, policy, problems)
    if setup is None:
        raise PipelineError(problems_message(str(params_file), problems))
    make_repeatable(policy)
    say("versions", ", ".join([f"python {platform.python_version()}", *(f"{n} {version(n)}" for n in LIBRARIES)]))
    say("examples", setup.examples_origin)
    if setup.launched.count > 1:
        say("processes", told_processes(setup.launched, setup.settings.effective_batch_size, device=policy.device))
    plan = plan_memory(
        base, setup.examples, settings=setup.settings, adapter=setup.adapter, policy=policy,
        choice=params.train.gradient_checkpointing, previews=params.train.preview_prompts > 0,
        sharing=setup.launched.on_this_machine if policy.device == "cpu" else 1,
    )  # fmt: skip
    training = _try_training(setup, plan, problems)
    drawing = _try_drawing(setup, plan.free_bytes, problems)
    peak_gb = peak_memory_gb(policy.device)
    say(
        "peak memory", "not counted on this device" if peak_gb is None else f"{peak_gb:.2f} GB, measured over the trial"
    )
    encoding_s = None if setup.is_encoded or not setup.n_photos else _try_encoding(setup, problems)
    if training and drawing:
        say("whole run", _whole_run(setup, plan, training, drawing, encoding_s=encoding_s))
    if problems:
        raise PipelineError(problems_message(f"No go: {params_file}", problems))
    say("go", "dvc repro")


def _set_up(
    params: Params, paths: ProjectPaths, base: Path, policy: DevicePolicy, problems: list[str]
) -> _Setup | None:
    """Return what the trial needs, or None when there are problems, each of which is added to `problems`."""
    from loupe.diffusion.base_model import base_model_info
    from loupe.diffusion.optimizers import optimizer_libraries
    from loupe.diffusion.processes import AskedProcesses, asked_processes, require_a_device_each
    from loupe.diffusion.trackers import require_trackers
    from loupe.diffusion.train_run import adapter_config
    from loupe.diffusion.train_settings import TrainSettings

    info = base_model_info(base, name=params.model.base, revision=params.model.revision)
    knobs = params.train.model_dump(include=ADAPTER_KNOBS)
    adapter = _noting(problems, lambda: adapter_config(base, info, **knobs))
    _noting(problems, lambda: optimizer_libraries(params.train.optimizer, device=policy.device))
    _noting(problems, lambda: require_trackers(params.train.trackers))
    launched = _noting(problems, asked_processes) or AskedProcesses()
    if launched.count > 1:
        _noting(problems, lambda: require_a_device_each(policy.device, launched.on_this_machine))
    if problems or adapter is None:
        return None
    settings = TrainSettings.of(params.train.model_dump(), seed=params.seed)
    examples, origin, is_encoded = _examples(params, paths, base, info, settings)
    return _Setup(
        params=params, base=base, info=info, policy=policy, adapter=adapter, settings=settings,
        examples=examples, examples_origin=origin, n_photos=_n_photos(paths), is_encoded=is_encoded,
        launched=launched,
    )  # fmt: skip


def _n_photos(paths: ProjectPaths) -> dict[str, int]:
    try:
        manifest = read_record(paths.dataset / "manifest.json", DatasetManifest, made_by="prepare")
    except PipelineError:
        return {}
    return manifest.n_examples


def _examples(
    params: Params, paths: ProjectPaths, base: Path, info: BaseModelInfo, settings: TrainSettings
) -> tuple[Examples, str, bool]:
    """Return the encoded training examples, or made-up ones where there are none that would be used."""
    from loupe.diffusion.base_model_files import PIXELS_PER_LATENT
    from loupe.diffusion.batches import training_examples
    from loupe.diffusion.trial_run import made_up_examples

    side_px = params.data.resolution
    try:
        examples = training_examples(paths.latents, base=info, settings=settings)
        if examples.mean.shape[-1] * PIXELS_PER_LATENT != side_px:
            raise PipelineError(f"{paths.latents} is of another data.resolution")
    except PipelineError as error:
        reason = str(error).partition("\n")[0]
        made_up = made_up_examples(base, info, side_px=side_px, count=params.train.batch_size)
        return made_up, f"made up: noise of the right shape ({reason})", False
    return examples, f"{len(examples.image_ids)} encoded photos of {paths.latents}", True


def _try_training(setup: _Setup, plan: MemoryPlan, problems: list[str]) -> TrainingTrial | None:
    from loupe.diffusion.memory import memory_problem, run_bytes, step_bytes
    from loupe.diffusion.trial_run import try_training

    settings, device = setup.settings, setup.policy.device
    needed = step_bytes(plan.cost, plan.setting, device=device)
    whole = run_bytes(plan.cost, plan.setting, device=device)
    recomputes = "with" if plan.gradient_checkpointing else "without"
    say(
        "memory",
        f"training about {needed / GB:.2f} GB {recomputes} gradient checkpointing, {whole / GB:.2f} GB with what "
        f"is done with a checkpoint beside it, estimated; {plan.free_bytes / GB:.1f} GB free",
    )
    if problem := memory_problem(plan.cost, plan.setting, device=device, free_bytes=plan.free_bytes):
        problems.append(problem)
        return None
    trial = _noting(
        problems,
        lambda: try_training(
            setup.base, setup.info, setup.examples, settings=settings, adapter=setup.adapter, policy=setup.policy,
            gradient_checkpointing=plan.gradient_checkpointing,
        ),
        device=device,
        advice=plan.why_full,
    )  # fmt: skip
    if trial:
        rate = settings.effective_batch_size * _at_once(setup) / trial.step_s
        steps = "1 step" if trial.n_steps == 1 else f"{trial.n_steps} steps, the last one timed"
        compiled = f", compiled in {duration(trial.compile_s)}" if trial.compile_s else ""
        say("training", f"{steps}: {duration(trial.step_s)}, {rate:.3g} images/s, loss {trial.loss:.4f}{compiled}")
    return trial


def _try_encoding(setup: _Setup, problems: list[str]) -> float | None:
    from loupe.diffusion.device_memory import FREE_MEMORY
    from loupe.diffusion.trial_run import try_encoding

    photo_s = _noting(
        problems,
        lambda: try_encoding(setup.base, side_px=setup.side_px, policy=setup.policy),
        device=setup.policy.device,
        advice=lambda: f"Encoding does not fit. {FREE_MEMORY}",
    )
    if photo_s is not None:
        say("encoding", f"a photo in {duration(photo_s)}")
    return photo_s


def _try_drawing(setup: _Setup, free_bytes: int, problems: list[str]) -> DrawingTrial | None:
    from loupe.diffusion.cost_model import drawing_cost
    from loupe.diffusion.device_memory import FREE_MEMORY
    from loupe.diffusion.memory import drawing_bytes, drawing_problem, pictures_that_fit
    from loupe.diffusion.picture_rows import takes_fewer
    from loupe.diffusion.sampling import SamplingSettings, pictures_at_once
    from loupe.diffusion.trial_run import try_drawing

    generate, policy = setup.params.generate, setup.policy
    latent_side, text_tokens = setup.examples.mean.shape[-1], setup.examples.embeddings.shape[1]
    cost = drawing_cost(setup.base, latent_side=latent_side, text_tokens=text_tokens, policy=policy)
    asked, guided = pictures_at_once(policy, generate.batch_size), generate.guidance_scale > 1
    fits = {"guided": guided, "device": policy.device, "free_bytes": free_bytes}
    together = asked
    if takes_fewer(policy):
        together = max(pictures_that_fit(cost, asked=asked, **fits), 1)
    needed = drawing_bytes(cost, n_pictures=together, guided=guided, device=policy.device)
    fewer = "" if together == asked else f"; not {asked}, which do not fit"
    say("memory", f"drawing about {needed / GB:.2f} GB for {together} pictures together, estimated{fewer}")
    problem = drawing_problem(cost, n_pictures=together, side_px=setup.side_px, **fits)
    if problem:
        problems.append(problem)
        return None
    sampling = SamplingSettings.square(generate, side_px=setup.side_px)
    prompt = next(iter(generate.prompts.values()), "a photo")
    trial = _noting(
        problems,
        lambda: try_drawing(setup.base, prompt=prompt, settings=sampling, policy=policy, batch_size=together),
        device=policy.device,
        advice=lambda: f"{together} pictures were estimated to fit. Lower generate.batch_size. {FREE_MEMORY}",
    )
    if trial:
        judged = trial.invalid_reason or "finite, not black, not flat, of the right size"
        say("drawing", f"a picture in {duration(_picture_s(setup, trial))}: {judged}")
        if trial.invalid_reason:
            problems.append(
                f"the base model draws a picture that is {trial.invalid_reason} ({policy.reason}). Try "
                f"LOUPE_DEVICE=cpu; if the picture stays so, the base model's files are not sound"
            )
    return trial


def _whole_run(
    setup: _Setup, plan: MemoryPlan, training: TrainingTrial, drawing: DrawingTrial, *, encoding_s: float | None
) -> str:
    """Return how long the parts that take longest will take, as measured; scoring comes on top."""
    train, confirm = setup.params.train, setup.params.confirm
    n_checkpoints = len(checkpoint_steps(train.max_steps, train.checkpoint_every))
    n_pictures = pictures_per_checkpoint(setup.params) * (n_checkpoints + 1)
    n_pictures += confirm.test_captions * confirm.seeds_per_prompt * 2
    parts = {
        f"{train.max_steps} steps": train.max_steps * training.step_s,
        f"{n_pictures} pictures": n_pictures * _picture_s(setup, drawing) / _at_once(setup),
    }
    if training.compile_s:
        parts["compiling"] = training.compile_s
    if setup.n_photos:
        n_encoded = setup.n_photos["val"] + setup.n_photos["train"] * (2 if train.random_flip else 1)
        if encoding_s is not None:
            parts[f"encoding of {n_encoded} photos"] = n_encoded * encoding_s
        n_rows = setup.n_photos["val"] * train.validation_timesteps * (n_checkpoints + 1)
        trained_flop = plan.cost.checkpointed_flop if plan.gradient_checkpointing else plan.cost.training_flop
        row_s = training.step_s / setup.settings.effective_batch_size * plan.cost.forward_flop / trained_flop
        parts[f"validation of {n_checkpoints} checkpoints"] = n_rows * row_s / _at_once(setup)
    without = ["scoring"] if setup.n_photos else ["preparing", "encoding", "validation", "scoring"]
    listed = ", ".join(f"{what} {duration(seconds)}" for what, seconds in parts.items())
    return f"about {duration(sum(parts.values()))} ({listed}); without {', '.join(without)}"


def _at_once(setup: _Setup) -> int:
    """Return how many processes work at full speed: each on a GPU of its own; those on a CPU share its cores."""
    return 1 if setup.policy.device == "cpu" else setup.launched.count


def _picture_s(setup: _Setup, trial: DrawingTrial) -> float:
    return setup.params.generate.num_inference_steps * trial.sampler_step_s + trial.decode_s


def _noting(
    problems: list[str], work: Callable[[], Result], *, device: str = "cpu", advice: Callable[[], str] = str
) -> Result | None:
    """Return what `work` returns; a problem of the user is noted, or a full memory with the advice; then None."""
    from loupe.diffusion.device_memory import told_when_full

    try:
        with told_when_full(device, advice):
            return work()
    except PipelineError as error:
        problems.append(str(error))
    return None
