"""Every module that a stored result passes through is in its key, or is said here to decide nothing of it."""

from __future__ import annotations

import pytest

from loupe.diffusion import latents, sample_plan, train_run, validation_files
from loupe.metrics import extractor_keys
from tests.contracts.source_tree import ROOT, reachable_files

FOLDER = ROOT / "loupe" / "diffusion"
KEYS = {
    "stages/encode.py": (
        latents._DECIDING_CODE,
        {
            "base_model.py": "finds files; the base model's hash is in the key",
            "base_model_files.py": "names files; the base model's hash is in the key",
            "base_model_tensors.py": "refuses files, and changes none",
            "device_memory.py": "does less at once on a GPU, where the number together is not promised either",
            "hub.py": "finds files",
            "latent_files.py": "gathers what is stored, for training, which has its code and hash in its key",
            "tensor_files.py": "reads and writes whole files",
        },
    ),
    "loupe/diffusion/train_run.py": (
        train_run._DECIDING_CODE,
        {
            "base_model.py": "finds files; the base model's hash is in the key",
            "base_model_files.py": "names files; the base model's hash is in the key",
            "base_model_tensors.py": "refuses files, and changes none",
            "compilation.py": "tries whether compiling works; whether it is asked for is in the key",
            "device_memory.py": "a part of latents.py that training does not use",
            "hub.py": "finds files",
            "latents.py": "encodes; the examples' hash is in the key",
            "processes.py": "shares out and adds up; the number of processes is in the key",
            "target_modules.py": "chooses names, which are in the key",
            "tensor_files.py": "reads and writes whole files",
            "text.py": "encodes; the examples' hash is in the key",
            "train_run.py": "makes the key, plans and stores",
            "train_store.py": "stores",
        },
    ),
    "loupe/diffusion/generation.py": (
        sample_plan._DECIDING_MODULES,
        {
            "base_model.py": "finds files; the base model's hash is in the key",
            "base_model_files.py": "names files; the base model's hash is in the key",
            "base_model_tensors.py": "refuses files, and changes none",
            "container_memory.py": "counts memory; the number of pictures together is in the key",
            "cost_model.py": "counts memory; the number of pictures together is in the key",
            "device_memory.py": "tells errors",
            "hub.py": "finds files",
            "latent_files.py": "a part of text_vectors.py that drawing does not use",
            "latents.py": "a part of text_vectors.py that drawing does not use",
            "memory.py": "counts memory; the number of pictures together is in the key",
            "picture_rows.py": "chooses the number of pictures together, which is in the key",
            "processes.py": "shares out",
            "prompts.py": "chooses texts, which are in the key",
            "sample_plan.py": "makes the key",
            "target_modules.py": "chooses names, which are in the key",
            "text_adapter.py": "names the folder of a file whose hash is in the key",
        },
    ),
    "loupe/diffusion/validation_files.py": (
        validation_files._DECIDING_MODULES,
        {
            "base_model.py": "finds files; the base model's hash is in the key",
            "base_model_files.py": "names files; the base model's hash is in the key",
            "base_model_tensors.py": "refuses files, and changes none",
            "cuda_graph.py": "records drawing and training only",
            "device_memory.py": "does less at once on a GPU, where the last bits are not promised",
            "hub.py": "finds files",
            "latent_files.py": "reads examples, whose hash is in the key",
            "latents.py": "encodes; the examples' hash is in the key",
            "processes.py": "shares whole batches out, which changes no loss",
            "sample_plan.py": "makes the keys of pictures",
            "sampling.py": "draws",
            "target_modules.py": "chooses names, which are in the file whose hash is in the key",
            "tensor_files.py": "reads and writes whole files",
            "text_adapter.py": "names the folder of a file whose hash is in the key",
            "validation_files.py": "makes the key",
            "validity.py": "judges pictures",
        },
    ),
}
MEASURES = {
    "pixel_measures.py": {"image_set.py": "names arrays"},
    "demo_classifier.py": {},
    "inception.py": {},
    "clip.py": {"cached_files.py": "finds files, whose hash is in the key"},
    "transformer_networks.py": {
        "cached_files.py": "finds files, whose hash is in the key",
        "clip.py": "holds two functions together",
        "clip_settings.py": "a part of clip.py that these do not use",
    },
}
KEYS |= {f"loupe/metrics/{start}": (extractor_keys.CODE[start], others) for start, others in MEASURES.items()}


def test_every_module_that_measures_is_looked_at() -> None:
    assert extractor_keys.CODE.keys() == MEASURES.keys()


@pytest.mark.parametrize("start", KEYS)
def test_a_module_is_in_the_key_or_decides_nothing(start: str) -> None:
    deciding, others = KEYS[start]
    folder = (ROOT / start).parent if start.startswith("loupe/metrics") else FOLDER
    passed = {path.name for path in (*reachable_files(ROOT / start), ROOT / start) if path.parent == folder}
    assert len(deciding) == len(set(deciding))
    assert passed - {"__init__.py"} == set(deciding) | others.keys(), "say here why a new one is not in the key"
    assert not set(deciding) & others.keys()
