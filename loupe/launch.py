"""One stage in several processes: how `accelerate launch` gets to start it, and what it has started.

It starts nothing of its own and knows neither torch nor what the processes say to each other
(`loupe.diffusion.processes` does).
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from loupe.errors import PipelineError

LAUNCH_VARIABLE = "LOUPE_LAUNCH"
_PRECISION_VARIABLE = "ACCELERATE_MIXED_PRECISION"


def launched_processes() -> int:
    """Return how many processes run this stage together; 1 unless a launcher has set WORLD_SIZE."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes_of_this_machine() -> int:
    """Return how many of them share this machine's memory; 1 unless a launcher has set LOCAL_WORLD_SIZE."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def launch_if_asked(module: str, arguments: Sequence[str]) -> None:
    """Become `accelerate launch <options> -m module arguments` when LOUPE_LAUNCH holds options, e.g. --num_processes 4.

    DVC runs one command on every machine, and how many devices a machine has is no parameter of the experiment: so it
    is said by the environment, like LOUPE_DEVICE, and dvc.yaml stays as it is. Replacing the process leaves signals
    and the exit code to the launcher. Raises PipelineError when the variable's quotes do not match.
    """
    words = launch_options()
    os.environ.pop(LAUNCH_VARIABLE, None)
    if not words or "WORLD_SIZE" in os.environ:
        return
    # Loupe's device policy chooses the precision; saying "no" here keeps the launcher from warning about defaults.
    launcher = ["-m", "accelerate.commands.launch", "--mixed_precision", "no", "--dynamo_backend", "no"]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *launcher, *words, "-m", module, *arguments])


def launch_options() -> list[str]:
    """Return the words of LOUPE_LAUNCH, none where it is not set; PipelineError when its quotes do not match."""
    options = os.environ.get(LAUNCH_VARIABLE, "").strip()
    try:
        return shlex.split(options)
    except ValueError as error:
        raise PipelineError(
            f"{LAUNCH_VARIABLE} is {options!r}: {error}. It holds options of `accelerate launch`, e.g. "
            f'{LAUNCH_VARIABLE}="--num_processes 4".'
        ) from None


def require_launch_as_asked(stage: str, *, may_be_many: bool) -> None:
    """Raise PipelineError when several processes run a stage that is one, or one runs where several were asked for."""
    count = launched_processes()
    if count > 1 and not may_be_many:
        raise PipelineError(
            f"Stage {stage} runs in one process, and {count} were started. Start it alone: python -m stages.{stage}"
        )
    # For CPUs, and where it sees a single GPU, `accelerate launch --num_processes 2` starts one process and says
    # nothing; all it leaves behind is the address of the processes it did not start.
    if count == 1 and "WORLD_SIZE" not in os.environ and {_PRECISION_VARIABLE, "MASTER_ADDR"} <= os.environ.keys():
        raise PipelineError(
            f"accelerate launch was asked for several processes and started one, as it does on CPUs or a single GPU. "
            f"Ask for them with --multi_gpu, which also serves CPUs: accelerate launch --multi_gpu --num_processes 2 "
            f"-m stages.{stage} (with LOUPE_DEVICE=cpu for CPUs)."
        )
