"""The validation loss of a run's checkpoints: each measured once ever, and the files that hold what was measured.

metrics/validation.csv and metrics/validation_timesteps.csv are the curves; validation.safetensors beside the
checkpoints has every single loss: `losses` [S, N, T] float32, `steps` [S] and `timesteps` [T] int64, and in its header
`image_ids`, the N ids as JSON. All three grow while training runs. Nothing here trains or draws.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.atomic_io import sha256_file, write_bytes, write_csv
from loupe.diffusion.adapter import load_adapter
from loupe.diffusion.device import DevicePolicy, device_identity
from loupe.diffusion.model_loading import load_unet
from loupe.diffusion.processes import ALONE, Processes
from loupe.diffusion.sample_plan import AdapterSource
from loupe.diffusion.tensor_files import KEY_ENTRY, hashed_bytes, read_hashed, tensor_bytes
from loupe.diffusion.text_adapter import TEXT_FOLDER
from loupe.diffusion.text_vectors import TextEncoders, with_vectors_of
from loupe.diffusion.validation import (
    ValidationSet,
    curve_rows,
    require_finite_losses,
    timestep_rows,
    validation_losses,
)
from loupe.paths import step_name
from loupe.progress import say
from loupe.records import BASE_STEP, CheckpointInfo
from loupe.train_records import ValidationRow, ValidationTimestepRow
from loupe.workstore import WorkStore, fingerprint, library_versions, remove_entry, source_fingerprint

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel

LOSSES_FILE = "validation.safetensors"
STORE_KIND = "validation"
_SUFFIX = ".safetensors"
_DECIDING_MODULES = (
    "adapter.py", "cpu_shares.py", "device.py", "dora.py", "fused_lora.py", "model_loading.py", "noise.py", "text.py",
    "text_vectors.py", "unet_forward.py", "validation.py",
)  # fmt: skip
_DECIDING_LIBRARIES = ("torch", "diffusers", "peft", "transformers")


class Validation:
    """Measures the base model and the checkpoints of one run, as they come.

    The models are loaded anew each time and given the adapters' files as they will be shipped. So nothing of the
    trainer (its dropout, its compiled graph, what it averages) can leak into the numbers, and nothing of this into the
    trainer. Of several processes the main one measures() and writes, while the others help() whenever it does.
    """

    def __init__(
        self,
        data: ValidationSet,
        *,
        seed: int,
        policy: DevicePolicy,
        store: WorkStore,
        metrics: Path,
        processes: Processes = ALONE,
    ) -> None:
        self.data = data
        self.policy = policy
        self.store = store
        self.metrics = metrics
        self.processes = processes
        self.losses: dict[int, torch.Tensor] = {}
        """Step -> [N, T] of what has been measured, or was found in the work store."""
        here = Path(__file__)
        self._parts = {
            "examples": data.examples.sha256(),
            "timesteps": data.timesteps.tolist(),
            "seed": seed,
            "device": device_identity(policy),
            "dtype": policy.dtype_name,
            "versions": library_versions(*_DECIDING_LIBRARIES),
            "source": source_fingerprint(*(here.with_name(name) for name in _DECIDING_MODULES)),
        }

    def measure(self, source: AdapterSource) -> list[ValidationRow]:
        """Measure what of `source` has not been yet, the base model first; write the files; return the new rows.

        Raises PipelineError when a loss is not finite; what was measured before it is in the files by then.
        """
        wanted: dict[int, CheckpointInfo | None] = {BASE_STEP: None}
        wanted |= {info.step: info for info in source.checkpoints.checkpoints}
        new = {step: info for step, info in wanted.items() if step not in self.losses}
        stored = {step: _read(self._entry(source, info)) for step, info in new.items()}
        self.losses |= {step: losses for step, losses in stored.items() if losses is not None}
        missing = sorted(step for step, losses in stored.items() if losses is None)
        with_text = {step: source.text_adapter_folder(step) is not None for step in missing}
        for step, losses in self._computed(source.base_folder, source.checkpoints_folder, with_text):
            self.losses[step] = losses
            entry = self._entry(source, new[step])
            write_bytes(entry, hashed_bytes({"losses": losses}, metadata={KEY_ENTRY: entry.stem}))
            self._write(source.checkpoints_folder)
        if not missing:
            self._write(source.checkpoints_folder)
        rows = [row for row in curve_rows(self.losses) if row.step in new]
        for row in rows:
            say(_sentence(row))
        return rows

    def file_hashes(self, checkpoints_folder: Path) -> dict[str, str]:
        """Return file name -> SHA-256 of what measure() has left beside the checkpoints."""
        return {LOSSES_FILE: sha256_file(checkpoints_folder / LOSSES_FILE)}

    def help(self, base_folder: Path, checkpoints_folder: Path) -> None:
        """Take this process's share of what the main process measures now; it raises what measure() raises."""
        for _ in self._computed(base_folder, checkpoints_folder, {}):
            pass

    def _computed(
        self, base_folder: Path, checkpoints_folder: Path, with_text: Mapping[int, bool]
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield each step of the main process's `with_text`, in its order, with its losses.

        Step -> whether its text encoder has an adapter of its own.
        """
        numbers = self.processes.numbers_from_main([*with_text, *with_text.values()])
        if not numbers:
            return
        half = len(numbers) // 2
        unet = load_unet(base_folder, device=self.policy.device, dtype=self.policy.dtype)
        encoders = TextEncoders(base_folder, policy=self.policy)
        for step, has_text in zip(numbers[:half], numbers[half:], strict=True):
            data, folder = self.data, checkpoints_folder / step_name(step)
            if step != BASE_STEP:  # which came first, when the UNet had no adapter yet
                load_adapter(unet, folder)
            if has_text:
                data = replace(data, examples=with_vectors_of(encoders.of(folder / TEXT_FOLDER), data.examples))
            losses = validation_losses(
                unet, data, policy=self.policy, what=f"validation at step {step}", processes=self.processes
            )
            require_finite_losses(losses, self.data.examples.image_ids, step=step)
            yield step, losses

    def _entry(self, source: AdapterSource, info: CheckpointInfo | None) -> Path:
        """Return where the losses of a checkpoint are kept; alpha and the like are in the file that its hash is of."""
        deciding = {"base": source.base_model.sha256, "adapter": None if info is None else info.sha256}
        if info is not None and info.text_encoder_sha256 is not None:
            deciding["text_encoder"] = info.text_encoder_sha256
        return self.store.path(STORE_KIND, fingerprint({**self._parts, **deciding}), _SUFFIX)

    def _write(self, checkpoints_folder: Path) -> None:
        import torch

        timesteps, steps = self.data.timesteps, sorted(self.losses)
        losses = torch.stack([self.losses[step] for step in steps])
        content = tensor_bytes(
            {"losses": losses, "steps": torch.tensor(steps), "timesteps": timesteps},
            metadata={"image_ids": json.dumps(self.data.examples.image_ids)},
        )
        write_bytes(checkpoints_folder / LOSSES_FILE, content)
        _write_rows(self.metrics / "validation.csv", ValidationRow, curve_rows(self.losses))
        by_timestep = timestep_rows(self.losses, timesteps.tolist())
        _write_rows(self.metrics / "validation_timesteps.csv", ValidationTimestepRow, by_timestep)


def _write_rows(target: Path, kind: type[BaseModel], rows: Sequence[BaseModel]) -> None:
    write_csv(target, list(kind.model_fields), (row.model_dump() for row in rows))


def _sentence(row: ValidationRow) -> str:
    line = f"validation at step {row.step}: loss {row.val_loss:.5f} over {row.n_images} images"
    if row.val_loss_diff_base is None:
        return f"{line}, of the base model"
    line += f", {row.val_loss_diff_base:+.5f} against the base model"
    if row.val_loss_diff_base_lo is None or row.val_loss_diff_base_hi is None:
        return line
    return f"{line} (95 % interval {row.val_loss_diff_base_lo:+.5f} to {row.val_loss_diff_base_hi:+.5f})"


def _read(path: Path) -> torch.Tensor | None:
    """Return stored losses; None when there are none, or when they are damaged: that is said, and they are removed."""
    if not path.exists():
        return None
    try:
        tensors, _ = read_hashed(path, key=path.stem)
    except ValueError as error:
        say(f"validation: a stored loss is damaged ({error}); it is measured anew.")
        remove_entry(path)
        return None
    return tensors["losses"]
