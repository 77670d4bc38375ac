"""One of two processes that talk over gloo: tries everything that processes.py and the trainer promise, and says so.

Run it twice, with what a launcher sets (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT). At the end process 1 dies, and
process 0 must notice.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic

import torch
from safetensors.torch import save_file

from loupe.diffusion.adapter import adapter_state
from loupe.diffusion.model_loading import load_unet
from loupe.diffusion.processes import Processes, joined_processes
from loupe.diffusion.validation import ValidationSet, make_validation_set, validation_losses
from loupe.errors import PipelineError
from tests.unit.diffusion.tiny_training import CPU, tiny_examples, tiny_trainer

N_STEPS = 5
SHARED = {"batch_size": 2, "caption_dropout": 0.1, "lora_dropout": 0.1, "learning_rate": 1e-3, "lr_warmup_steps": 3}


def main(base: Path, output: Path) -> None:
    with joined_processes() as processes:
        report = {"index": processes.index, "count": processes.count, "share": list(processes.share(range(5)))}
        summed, received = torch.tensor([1.0 + processes.index]), torch.tensor([10 + processes.index])
        processes.add_up(summed)
        processes.from_main(received)
        processes.require_same("The same thing", "same")
        report |= {"sum": summed.item(), "from_main": received.item(), "least": processes.least(7 - processes.index)}
        report["differing"] = _error_of(lambda: processes.require_same("The thing", f"of {processes.index}"))
        _train(base, output, processes, report)
        _train_both_models(base, output, processes)
        report["n_validated"] = _validate(base, output, processes)
        report["not_finite"] = _error_of(lambda: _train_on_a_bad_image(base, processes))
        report["scale"], report["loss"] = _train_while_one_overflows(base, processes)
        (output / f"{processes.index}.json").write_text(json.dumps(report))
        if not processes.is_main:
            os.kill(os.getpid(), signal.SIGKILL)
        started = monotonic()
        report["alone"] = _error_of(processes.wait)
        report["noticed_after_s"] = monotonic() - started
        (output / "0.json").write_text(json.dumps(report))
        os._exit(0)


def _error_of(action) -> str | None:
    try:
        action()
    except PipelineError as error:
        return str(error)
    return None


def _train(base: Path, output: Path, processes: Processes, report: dict) -> None:
    trainer = tiny_trainer(base, **SHARED, gradient_accumulation_steps=2, processes=processes)
    report["first_positions"] = []
    backward = trainer._backward

    def recording(step: int, part: int) -> torch.Tensor:
        report["first_positions"].append(trainer._first(step, part))
        return backward(step, part)

    trainer._backward = recording
    report["rows"] = [row.model_dump() for row in trainer.run(N_STEPS)]
    save_file(adapter_state(trainer.unet), output / f"{processes.index}.safetensors")


def _train_both_models(base: Path, output: Path, processes: Processes) -> None:
    knobs = {"gradient_accumulation_steps": 2, "train_text_encoder": True, "processes": processes}
    trainer = tiny_trainer(base, **SHARED, **knobs)
    list(trainer.run(N_STEPS))
    save_file(trainer.models.state(), output / f"{processes.index}-both.safetensors")


def _validate(base: Path, output: Path, processes: Processes) -> int:
    """Save every loss, and return how many rows went through this process's UNet."""
    rows = 0
    unet = load_unet(base, device="cpu", dtype=torch.float32)

    def count(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal rows
        rows += len(inputs[0])

    unet.register_forward_pre_hook(count)
    losses = validation_losses(unet, validation_set(), policy=CPU, what="validation", processes=processes)
    save_file({"losses": losses}, output / f"{processes.index}-losses.safetensors")
    return rows


def validation_set() -> ValidationSet:
    """Return 7 images at 8 timesteps: three full batches and a half."""
    schedule = torch.linspace(0.99, 0.01, 1000)
    return make_validation_set(
        tiny_examples(7), alphas_cumprod=schedule, n_timesteps=8, prediction_type="epsilon", scaling_factor=1.0, seed=3
    )


def _train_on_a_bad_image(base: Path, processes: Processes) -> None:
    """The four examples make up one step, so exactly one of the two processes sees image0."""
    examples = tiny_examples(4)
    mean = examples.mean.clone()
    mean[0] = float("nan")
    trainer = tiny_trainer(base, examples=replace(examples, mean=mean), batch_size=2, processes=processes)
    next(trainer.run(1))


def _train_while_one_overflows(base: Path, processes: Processes) -> tuple[float, float]:
    """Return the loss scale and loss after a step whose gradient overflowed in process 1 alone, at the first scale."""
    trainer = tiny_trainer(base, batch_size=2, processes=processes)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    backward = trainer._backward

    def overflowing(step: int, part: int) -> torch.Tensor:
        loss = backward(step, part)
        if not processes.is_main and trainer.scaler.get_scale() == 256.0:
            next(iter(trainer.parameters.values())).grad.fill_(float("inf"))
        return loss

    trainer._backward = overflowing
    row = next(trainer.run(1))
    return trainer.scaler.get_scale(), row.loss


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
