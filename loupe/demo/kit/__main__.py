"""Command line of the kit: `python -m loupe.demo.kit --stage all`.

Work files go to `.work/demo-kit`, results to `data/demo`.
"""

import argparse
from pathlib import Path

STAGES = ("vae", "latents", "unet", "decoder", "clip", "classifier", "install", "check")


def main() -> None:
    """Run one stage or all of them in order."""
    parser = argparse.ArgumentParser(prog="python -m loupe.demo.kit", description="Train the demo kit from code alone.")
    parser.add_argument(
        "--stage",
        choices=(*STAGES, "all"),
        default="all",
        help="one part, or all in order (default)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--work", type=Path, default=Path(".work/demo-kit"), help="folder of intermediate files")
    parser.add_argument("--out", type=Path, default=Path("data/demo"), help="folder of the finished kit")
    arguments = parser.parse_args()

    from loupe.demo.kit.stages import run_stage

    for stage in STAGES if arguments.stage == "all" else (arguments.stage,):
        run_stage(stage, device=arguments.device, work=arguments.work, out=arguments.out)


if __name__ == "__main__":
    main()
