"""Finding a base model of the Hugging Face Hub: first in the local cache, then over the network, failing in seconds.

It fetches the files that training and sampling need and nothing else: no pickles, no safety checker, no duplicates in
other formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from loupe.errors import PipelineError

NEEDED_FILES = (
    "model_index.json",
    "scheduler/*.json",
    "tokenizer/*.json",
    "tokenizer/*.txt",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MOVED = {"runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}
_NETWORK_TIMEOUT_S = 5.0


def hub_folder(name: str, revision: str | None, *, missing_parts: Callable[[Path], Sequence[str]]) -> Path:
    """Return the local snapshot folder of `name` at commit `revision`, downloading it when it is not cached whole.

    `missing_parts` lists what a folder lacks. Raises PipelineError when the revision is no full commit hash, or when
    the model is neither cached nor reachable; the message holds the command that downloads it.
    """
    name = _present_name(name)
    if revision is None or not _COMMIT.fullmatch(revision):
        raise PipelineError(
            f"model.revision is {revision!r}, but {name} is on the Hub, where names can move: give the full commit "
            f"hash (40 hex digits, shown at https://huggingface.co/{name}/commits/main)."
        )
    cached = _cached_folder(name, revision)
    if cached is not None and not missing_parts(cached):
        return cached
    return _download(name, revision)


def _present_name(name: str) -> str:
    if name not in _MOVED:
        return name
    print(f"{name} is no longer on the Hub under that name; using {_MOVED[name]}, the same weights.", flush=True)
    return _MOVED[name]


def _cached_folder(name: str, revision: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=NEEDED_FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _download(name: str, revision: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        HfApi().model_info(name, revision=revision, timeout=_NETWORK_TIMEOUT_S)
        return Path(snapshot_download(name, revision=revision, allow_patterns=NEEDED_FILES))
    except GatedRepoError:
        raise PipelineError(
            f"{name} asks for its licence to be accepted at https://huggingface.co/{name}, then for a "
            f"log-in: hf auth login"
        ) from None
    except RevisionNotFoundError:
        raise PipelineError(
            f"{name} has no commit {revision}. Its commits: https://huggingface.co/{name}/commits/main"
        ) from None
    except RepositoryNotFoundError:
        raise PipelineError(f"model.base: there is no folder {name!r} here, and no such model on the Hub.") from None
    except Exception as error:
        if not _is_out_of_reach(error):
            raise
        patterns = " ".join(f"--include '{pattern}'" for pattern in NEEDED_FILES)
        raise PipelineError(
            f"The base model {name} is not in the local cache, and the Hub cannot be reached "
            f"({type(error).__name__}).\n"
            f"Either, where there is a network (about 4 GB), run\n"
            f"  hf download {name} --revision {revision} {patterns}\n"
            f"and bring the cache folder here (HF_HOME names it), or point model.base at a diffusers folder on disk "
            f"(with model.revision: null)."
        ) from None


def _is_out_of_reach(error: Exception) -> bool:
    # The Hub's client lets its HTTP library's errors through, and which library that is changes with its version.
    return isinstance(error, OSError) or type(error).__module__.startswith("httpx")
