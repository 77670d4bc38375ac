"""The command line beside the pipeline: check a set-up, report a decision, draw or export with any checkpoint.

It is thin: each command loads the parameters and calls what the stages call. What belongs to a run is made by
`dvc repro`; nothing here writes to its folders.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.errors import PipelineError, exit_on_user_error
from loupe.params import PROMPT_ID, Params, load_params
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
    installed = Path(sys.argv[0]).stem == "loupe"
    prog = "loupe" if installed else "python -m loupe.cli"
    parser = argparse.ArgumentParser(prog=prog, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: params.yaml")
    commands = parser.add_subparsers(required=True, metavar="command")

    check = commands.add_parser(
        "check", help="say what this machine can do with the parameters: is all there, time, memory, what to change"
    )
    check.add_argument("--fast", action="store_true", help="only look whether all is there, without a trial")
    check.set_defaults(command=_check)

    scores = commands.add_parser("scores", help="print the scores of the last run as a Markdown table")
    scores.add_argument("--only", nargs="+", default=[], metavar="KEY", help="these scores; default: the headline ones")
    scores.add_argument(
        "--against", choices=("base", "best"), help="paired differences to the base model, or to the best of each score"
    )
    scores.set_defaults(command=_scores)

    verify = commands.add_parser(
        "verify", help="compute every score again from the stored features and compare with the files"
    )
    verify.set_defaults(command=_verify)

    report = commands.add_parser("report", help="write the decision as one HTML file that needs no server")
    report.add_argument(
        "--prompt-id", type=_prompt_id, action="append", default=[], dest="prompt_ids",
        help="a prompt whose pictures the file shows; may be repeated",
    )  # fmt: skip
    report.add_argument("--output", type=Path, required=True, help="the HTML file to write")
    report.set_defaults(command=_report)

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
    from loupe.preflight import check_parts, whole_base_model

    base, policy = check_parts(params, paths, params_file=options.params)
    if not options.fast:
        from loupe.preflight_trial import check_by_trial

        base = base or whole_base_model(params, paths)
        check_by_trial(params, paths, base, policy, params_file=options.params)


def _scores(params: Params, paths: ProjectPaths, options: argparse.Namespace) -> None:
    from loupe.run_store import RunStore
    from loupe.score_report import score_report

    del params
    report = score_report(RunStore(paths.root), keys=options.only, against=options.against)
    if not report:
        raise PipelineError("There are no scores yet (metrics/checkpoints.csv). Run: dvc repro")
    print(report)


def _verify(params: Params, paths: ProjectPaths, options: argparse.Namespace) -> None:
    from loupe.verification import verify_results

    del options
    verified = verify_results(paths, params)
    for line in verified.left_out:
        print(f"not compared: {line}")
    if verified.problems:
        raise PipelineError("\n".join(verified.problems))
    places = "metrics/ and in the manifests of data/"
    print(f"{verified.n_numbers} numbers in {places} agree with what the stored features and per_image.csv give")


def _report(params: Params, paths: ProjectPaths, options: argparse.Namespace) -> None:
    from loupe.atomic_io import write_text
    from loupe.report_page import report_html
    from loupe.run_store import RunStore

    del params
    write_text(options.output, report_html(RunStore(paths.root), prompt_ids=options.prompt_ids))
    print(options.output)


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
        settings=SamplingSettings.square(params.generate, side_px=dataset.resolution_px),
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
