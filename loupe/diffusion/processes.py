"""Several processes that do one stage together: who is who, dividing work, waiting, adding tensors up.

`accelerate launch` starts them; alone, nothing of torch.distributed is loaded. What is divided and what is added up,
the callers decide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from loupe.diffusion.device import choose_device_kind
from loupe.errors import PipelineError
from loupe.launch import LAUNCH_VARIABLE, launch_options, launched_processes, processes_of_this_machine

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
TIMEOUT = timedelta(hours=12)
"""How long one process waits for another. A process that ends is noticed at once by the launcher and by its peers; only
a machine that vanishes from the network is waited for. The others wait while the main process draws a checkpoint's
previews, and on a CPU that takes a full-size model hours."""


@dataclass(frozen=True, slots=True)
class Processes:
    """One process among those that do the stage together; every method is called by all of them in the same order.

    All raise PipelineError when another process has ended.
    """

    index: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes what the stage leaves behind."""
        return self.index == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return every `count`-th item from `index` on: the shares are disjoint, and together they are all."""
        return items[self.index :: self.count]

    def wait(self) -> None:
        """Return when every process has come here."""
        import torch

        self.add_up(torch.zeros(1))

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace `tensor` by its sum over the processes, in place; it lies on the CPU or on this process's GPU."""
        if self.count > 1:
            from torch import distributed

            with self._reporting():
                distributed.all_reduce(tensor)

    def from_main(self, tensor: torch.Tensor) -> None:
        """Replace `tensor` by that of the main process, in place."""
        if self.count > 1:
            from torch import distributed

            with self._reporting():
                distributed.broadcast(tensor, src=0)

    def numbers_from_main(self, numbers: Sequence[int]) -> list[int]:
        """Return the main process's `numbers`, whatever this one hands in."""
        import torch

        count = torch.tensor([len(numbers)])
        self.from_main(count)
        received = torch.zeros(int(count), dtype=torch.int64)
        if self.is_main:
            received[:] = torch.tensor(numbers, dtype=torch.int64)
        self.from_main(received)
        return received.tolist()

    def least(self, number: int) -> int:
        """Return the smallest of the numbers that the processes hand in."""
        import torch

        numbers = torch.zeros(self.count, dtype=torch.int64)
        numbers[self.index] = number
        self.add_up(numbers)
        return int(numbers.min())

    def require_same(self, what: str, text: str) -> None:
        """Raise PipelineError, in every process, unless all hand in the same `text`."""
        import torch

        mine = torch.frombuffer(bytearray(hashlib.sha256(text.encode("utf-8")).digest()), dtype=torch.uint8)
        of_main = mine.clone()
        self.from_main(of_main)
        differing = torch.zeros(self.count, dtype=torch.int64)
        differing[self.index] = int(not torch.equal(mine, of_main))
        self.add_up(differing)
        if differing.any():
            others = ", ".join(str(index) for index in differing.nonzero().flatten().tolist())
            raise PipelineError(
                f"{what} differs between process 0 and {others}. All processes need the same project folder, "
                f"params.yaml, libraries, kind of device and OMP_NUM_THREADS."
            )

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise PipelineError(
                f"Process {self.index} of {self.count} has lost another one ({reason}). What that one said before it "
                f"ended is the cause. Finished work is kept; start all of them again to go on."
            ) from error


ALONE = Processes()


@dataclass(frozen=True, slots=True)
class AskedProcesses:
    """How many processes LOUPE_LAUNCH asks for."""

    count: int = 1
    on_this_machine: int = 1


def asked_processes() -> AskedProcesses:
    """Return what LOUPE_LAUNCH asks for, read as `accelerate launch` reads it; one process where it does not say.

    Raises PipelineError as launch_options, and when the launcher does not know an option.
    """
    words = launch_options()
    if not words:
        return AskedProcesses()
    from accelerate.commands.launch import launch_command_parser

    try:
        asked = launch_command_parser().parse_args([*words, "script"])
    except SystemExit:  # it has said to stderr what is wrong
        raise PipelineError(f"{LAUNCH_VARIABLE} is not what accelerate launch understands; see above.") from None
    count = asked.num_processes or 1
    return AskedProcesses(count, -(-count // (asked.num_machines or 1)))


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the processes that were launched together and yield this one; come before anything touches a GPU.

    Each gets a GPU of its own. On a GPU, tensors there go through NCCL; all else goes through gloo. Raises
    PipelineError when a process has no GPU of its own or the device is one that cannot take part.
    """
    count = launched_processes()
    if count == 1:
        yield ALONE
        return
    from accelerate import PartialState

    kind = choose_device_kind()
    require_a_device_each(kind, processes_of_this_machine())
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    try:
        state = PartialState(cpu=kind == "cpu", backend=backend, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise PipelineError(
            f"The {count} processes cannot reach each other: {str(error).strip().splitlines()[0]} Check the "
            f"launcher's --main_process_ip and --main_process_port, and that each machine was started."
        ) from error
    processes = Processes(state.process_index, state.num_processes)
    yield processes
    # Only after success: taking a group down that a peer has left can itself wait for that peer.
    processes.wait()
    state.destroy_process_group()


def require_a_device_each(kind: str, local_count: int) -> None:
    """Raise PipelineError unless each of several processes on this machine can have a device of the kind."""
    import torch

    if kind == "mps":
        raise PipelineError(
            "Several processes work together on CUDA GPUs or on CPUs, not on a Mac's GPU: start the stage alone, or "
            "set LOUPE_DEVICE=cpu."
        )
    if kind == "cuda" and local_count > torch.cuda.device_count():
        raise PipelineError(
            f"{local_count} processes were started on this machine, which shows {torch.cuda.device_count()} GPUs. "
            f"Start one process per GPU (--num_processes), or set LOUPE_DEVICE=cpu."
        )
