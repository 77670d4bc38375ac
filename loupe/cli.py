"""The command line beside the pipeline: check a set-up, draw any prompt with any checkpoint, export any checkpoint.

It is thin: each command loads the parameters and calls what the stages call. What belongs to a run is made by
`dvc repro`; nothing here writes to its folders.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.errors import PipelineError, exit_on_user_error, problems_message
from loupe.params import PROMPT_ID, Params, checkpoint_steps, load_params
from loupe.paths import ProjectPaths

if TYPE_CHECKING:
    from loupe.diffusion.sample_plan import AdapterSource


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a user's mistake is printed bare with exit code 2."""
    options = _parser().parse_args(arguments)

    def command() -> None:
        params = load_params(options.params)
        options.command(params, ProjectPaths(Path.cwd()), options)

    exit_on_user_error(command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loupe.cli", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: params.yaml")
    commands = parser.add_subparsers(required=True, metavar="command")

    check = commands.add_parser(
        "check", help="say whether parameters, data, base model, prompts and scorers are in order"
    )
    check.set_defaults(command=_check)

    scores = commands.add_parser("scores", help="print the scores of the last run as a Markdown table")
    scores.set_defaults(command=_scores)

    generate = commands.add_parser("generate", help="draw a prompt with chosen checkpoints")
    generate.add_argument("prompt")
    generate.add_argument(
        "--prompt-id",
        type=_prompt_id,
        default="prompt",
        help="id that the seeds come from; with the id of a prompt of the run, its pictures come out again",
    )
    generate.add_argument(
        "--step",
        type=int,
        action="append",
        required=True,
        dest="steps",
        help="a checkpoint, or 0 for the base model; may be repeated",
    )
    generate.add_argument("--count", type=_positive, default=1, help="pictures per step, each from its own seed")
    generate.add_argument("--seed", type=int, help="root of the seeds; default: seed of the parameters")
    generate.add_argument("--output", type=Path, required=True, help="a new or empty folder")
    generate.set_defaults(command=_generate)

    export = commands.add_parser("export", help="export a checkpoint of your choice")
    export.add_argument("--step", type=int, required=True)
    export.add_argument("--output", type=Path, required=True, help="a new or empty folder")
    export.set_defaults(command=_export)
    return parser


def _check(params: Params, paths: ProjectPaths, options: argparse.Namespace) -> None:
    from loupe.diffusion.base_model import load_tokenizer, resolve_base_model
    from loupe.diffusion.device import choose_device, device_identity
    from loupe.diffusion.prompts import check_prompt_lengths, fixed_prompts
    from loupe.metrics.extractors import Machine, resolve_extractors

    problems = []
    policy = choose_device()
    data = paths.root / Path(params.data.root).expanduser()
    if not data.is_dir():
        problems.append(f"data.root: there is no folder {data}")
    try:
        base = resolve_base_model(params.model.base, params.model.revision, demo_folder=paths.demo)
        prompts = fixed_prompts(params.generate.prompts, known_colours=())
        check_prompt_lengths(load_tokenizer(base), prompts, negative_prompt=params.generate.negative_prompt)
    except PipelineError as error:
        problems.append(str(error))
    evaluate, machine = params.evaluate, Machine(policy.device, device_identity(policy))
    try:
        scorers = resolve_extractors(
            inception=evaluate.inception, clip=evaluate.clip, demo_folder=paths.demo, machine=machine
        ).infos
    except PipelineError as error:
        problems.append(str(error))
    if problems:
        raise PipelineError(problems_message(str(options.params), problems))
    steps = checkpoint_steps(params.train.max_steps, params.train.checkpoint_every)
    n_prompts = len(params.generate.prompts) + params.generate.val_captions
    n_pictures = n_prompts * params.generate.seeds_per_prompt
    print(f"base model   {params.model.base}, whole, in {base}")
    print(f"data         {params.data.source} from {data}")
    print(f"device       {policy.reason}")
    print(f"scorers      {', '.join(info.name for info in scorers)}")
    print(f"checkpoints  {', '.join(map(str, steps))}")
    print(
        f"pictures     {n_pictures} for the base model and for each checkpoint, {n_pictures * (len(steps) + 1)} in all"
    )


def _scores(params: Params, paths: ProjectPaths, options: argparse.Namespace) -> None:
    from loupe.run_store import RunStore
    from loupe.score_report import score_report

    del params, options
    report = score_report(RunStore(paths.root))
    if not report:
        raise PipelineError("There are no scores yet (metrics/checkpoints.csv). Run: dvc repro")
    print(report)


def _generate(params: Params, paths: ProjectPaths, options: argparse.Namespace) -> None:
    from loupe.atomic_io import read_record
    from loupe.diffusion.generation import render_samples
    from loupe.diffusion.sampling import SamplingSettings
    from loupe.records import DatasetManifest, PromptRecord
    from loupe.workstore import WorkStore

    dataset = read_record(paths.dataset / "manifest.json", DatasetManifest, made_by="prepare")
    rendered = render_samples(
        _source(params, paths),
        steps=options.steps,
        prompts=[PromptRecord(prompt_id=options.prompt_id, text=options.prompt, colour=None)],
        seeds_per_prompt=options.count,
        purpose="generate",
        root_seed=params.seed if options.seed is None else options.seed,
        settings=SamplingSettings(
            width_px=dataset.resolution_px,
            height_px=dataset.resolution_px,
            guidance_scale=params.generate.guidance_scale,
            num_inference_steps=params.generate.num_inference_steps,
            negative_prompt=params.generate.negative_prompt,
        ),
        batch_size=params.generate.batch_size,
        output=_new_folder(options.output),
        store=WorkStore(paths.work),
    )
    for sample in rendered.manifest.samples:
        picture = "no picture" if sample.file is None else options.output / sample.file
        print(f"step {sample.step}, seed {sample.seed}: {picture}{_reason(sample.invalid_reason)}")


def _export(params: Params, paths: ProjectPaths, options: argparse.Namespace) -> None:
    from loupe.atomic_io import read_record
    from loupe.diffusion.export import export_checkpoint, read_evidence
    from loupe.diffusion.model_card import SuggestedSettings
    from loupe.records import DatasetManifest

    manifest = export_checkpoint(
        _source(params, paths),
        step=options.step,
        name=params.export.name,
        trigger=params.export.trigger,
        dataset=read_record(paths.dataset / "manifest.json", DatasetManifest, made_by="prepare"),
        evidence=read_evidence(paths.metrics / "checkpoints.csv", step=options.step, selection=None),
        settings=SuggestedSettings(
            guidance_scale=params.generate.guidance_scale,
            num_inference_steps=params.generate.num_inference_steps,
            negative_prompt=params.generate.negative_prompt,
        ),
        full_pipeline=params.export.full_pipeline,
        output=_new_folder(options.output),
    )
    for file in manifest.files:
        print(f"{file.format}: {options.output / file.file}")


def _source(params: Params, paths: ProjectPaths) -> AdapterSource:
    from loupe.diffusion.sample_plan import read_adapter_source

    return read_adapter_source(
        params.model.base, params.model.revision, demo_folder=paths.demo, checkpoints_folder=paths.checkpoints
    )


def _new_folder(folder: Path) -> Path:
    """Return the folder, made if need be; one that holds anything is left alone, for it may be precious."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PipelineError(f"{folder} is not an empty folder. Name a new one with --output.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _reason(invalid_reason: str | None) -> str:
    return "" if invalid_reason is None else f" ({invalid_reason})"


def _prompt_id(text: str) -> str:
    if not PROMPT_ID.fullmatch(text):
        raise argparse.ArgumentTypeError("must be lower-case letters, digits and underscores")
    return text


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    main()
