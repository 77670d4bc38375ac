"""What a run has to draw and under which key each picture is kept: prompts x seeds x checkpoints.

It loads no model and draws nothing; it reads only the hashes of the adapters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loupe.atomic_io import read_record, sha256_file
from loupe.diffusion.adapter import WEIGHTS_FILE
from loupe.diffusion.base_model import base_model_info, resolve_base_model
from loupe.diffusion.device import DevicePolicy, device_identity
from loupe.diffusion.sampling import SAMPLER, Purpose, SamplingSettings, sample_seed
from loupe.diffusion.text_adapter import TEXT_FOLDER
from loupe.errors import PipelineError, problems_message
from loupe.records import BASE_STEP, BaseModelInfo, CheckpointInfo, CheckpointsManifest, PromptRecord
from loupe.workstore import fingerprint, library_versions, source_fingerprint

_DECIDING_MODULES = (
    "adapter.py", "cpu_shares.py", "cuda_graph.py", "device.py", "dora.py", "fused_lora.py", "generation.py",
    "model_loading.py", "picture_store.py", "sampling.py", "tensor_files.py", "text.py", "text_vectors.py",
    "unet_forward.py", "validity.py",
)  # fmt: skip
_DECIDING_LIBRARIES = ("torch", "diffusers", "transformers", "peft", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class AdapterSource:
    """A base model and the checkpoints that were trained on it."""

    base_folder: Path
    base_model: BaseModelInfo
    checkpoints_folder: Path
    checkpoints: CheckpointsManifest

    def adapter_folder(self, step: int) -> Path:
        """Return the folder of a trained step's adapter."""
        return self.checkpoints_folder / self._info(step).folder

    def text_adapter_folder(self, step: int) -> Path | None:
        """Return the folder of the text encoder's adapter at a step; None when the base model's is used unchanged."""
        if step == BASE_STEP or self._info(step).text_encoder_sha256 is None:
            return None
        return self.adapter_folder(step) / TEXT_FOLDER

    def _info(self, step: int) -> CheckpointInfo:
        return next(info for info in self.checkpoints.checkpoints if info.step == step)


def read_adapter_source(
    name: str, revision: str | None, *, demo_folder: Path, checkpoints_folder: Path
) -> AdapterSource:
    """Resolve the base model, read the checkpoints' manifest, and return both; PipelineError where one is missing."""
    checkpoints = read_record(checkpoints_folder / "manifest.json", CheckpointsManifest, made_by="train")
    folder = resolve_base_model(name, revision, demo_folder=demo_folder)
    return AdapterSource(
        base_folder=folder,
        base_model=base_model_info(folder, name=name, revision=revision),
        checkpoints_folder=checkpoints_folder,
        checkpoints=checkpoints,
    )


@dataclass(frozen=True, slots=True)
class PlannedSample:
    """One picture of the run, drawn or not; `key` is the fingerprint of everything that decides its bytes."""

    prompt: PromptRecord
    seed_index: int
    seed: int
    step: int
    key: str

    @property
    def file(self) -> str:
        """Return its path in the samples folder: <prompt id>-<seed index>/<step>.png."""
        return f"{self.prompt.prompt_id}-{self.seed_index}/{self.step}.png"


def plan_samples(
    source: AdapterSource,
    *,
    steps: Sequence[int],
    prompts: Sequence[PromptRecord],
    seeds_per_prompt: int,
    purpose: Purpose,
    root_seed: int,
    settings: SamplingSettings,
    policy: DevicePolicy,
    n_rows: int,
) -> list[PlannedSample]:
    """Return every picture, ordered by prompt, seed index and step, after checking the adapters of `steps`.

    `n_rows` pictures go through the UNet together: it decides the last bits (see `sampling.pictures_at_once`).
    """
    adapters = verified_adapters(source, steps)
    shared = {
        "base": source.base_model.sha256,
        "settings": asdict(settings),
        "sampler": SAMPLER,
        "device": device_identity(policy),
        "dtype": policy.dtype_name,
        "n_rows": n_rows,
        "versions": library_versions(*_DECIDING_LIBRARIES),
        "source": source_fingerprint(*(Path(__file__).with_name(name) for name in _DECIDING_MODULES)),
    }
    planned = []
    for prompt in prompts:
        for seed_index in range(seeds_per_prompt):
            seed = sample_seed(root_seed, purpose=purpose, prompt_id=prompt.prompt_id, seed_index=seed_index)
            for step in sorted(set(steps)):
                adapter = _adapter_parts(adapters, step)
                key = fingerprint({**shared, "prompt": prompt.text, "seed": seed, "adapter": adapter})
                planned.append(PlannedSample(prompt, seed_index, seed, step, key))
    return planned


def _adapter_parts(adapters: Mapping[int, CheckpointInfo], step: int) -> dict[str, object] | None:
    """Return what decides an adapter's effect: alpha, kind and target modules do, and are not in its weights."""
    if step == BASE_STEP:
        return None
    info = adapters[step]
    parts: dict[str, object] = {
        "sha256": info.sha256,
        "rank": info.rank,
        "alpha": info.alpha,
        "target_modules": sorted(info.target_modules),
        "use_dora": info.use_dora,
        "use_rslora": info.use_rslora,
    }
    return parts if info.text_encoder_sha256 is None else {**parts, "text_encoder": info.text_encoder_sha256}


def verified_adapters(source: AdapterSource, steps: Sequence[int]) -> dict[int, CheckpointInfo]:
    """Return step -> checkpoint for the steps above 0, after checking that the files are those of the manifest.

    Raises PipelineError, naming all that are not, or when the base model is not the one they were trained on.
    """
    trained_on = source.checkpoints.base_model
    if trained_on.sha256 != source.base_model.sha256:
        raise PipelineError(
            f"The checkpoints in {source.checkpoints_folder} were trained on the base model {trained_on.name} "
            f"({trained_on.sha256[:12]}); model.base is now {source.base_model.name} "
            f"({source.base_model.sha256[:12]}). Train on it: dvc repro train"
        )
    by_step = {info.step: info for info in source.checkpoints.checkpoints}
    problems = []
    for step in sorted(set(steps) - {BASE_STEP}):
        info = by_step.get(step)
        if info is None:
            problems.append(f"step {step}: there is no such checkpoint; there are {', '.join(map(str, by_step))}")
            continue
        hashes = {WEIGHTS_FILE: info.sha256, f"{TEXT_FOLDER}/{WEIGHTS_FILE}": info.text_encoder_sha256}
        for name, sha256 in hashes.items():
            file = source.checkpoints_folder / info.folder / name
            if sha256 is not None and not file.is_file():
                problems.append(f"{info.folder}: {name} is not there")
            elif sha256 is not None and sha256_file(file) != sha256:
                problems.append(f"{info.folder}: {name} is not the file that was trained (its SHA-256 differs)")
    if problems:
        advice = "bring them back with `dvc checkout data/checkpoints`, or train anew: dvc repro --force train"
        raise PipelineError(problems_message(f"Checkpoints in {source.checkpoints_folder}", [*problems, advice]))
    return {step: by_step[step] for step in steps if step != BASE_STEP}
