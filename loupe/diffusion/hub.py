"""Finding a base model of the Hugging Face Hub: first in the local cache, then over the network, failing in seconds.

It fetches the files that training and sampling need and nothing else: no pickles, no safety checker, no duplicates in
other formats.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
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
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
DOWNLOAD_SIZE = "about 4 GB"
"""What Stable Diffusion 1.5 takes in NEEDED_FILES."""


def cached_folder(name: str, revision: str | None) -> Path | None:
    """Return the local snapshot of `name` at commit `revision`, which may lack files; None when there is none.

    Raises PipelineError when the revision is no full commit hash, or the name none that the Hub could have.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    if revision is None or not _COMMIT.fullmatch(revision):
        raise PipelineError(
            f"model.base: there is no folder {name!r} here. If it is meant as a Hub id (owner/name): names can move "
            f"there, so model.revision must be the full commit hash (40 hex digits, shown at "
            f"https://huggingface.co/{_MOVED.get(name, name)}/commits/main); it is {revision!r}."
        )
    name = _present_name(name)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=NEEDED_FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError:
        raise PipelineError(f"model.base: there is no folder {name!r} here, and it cannot be a Hub id.") from None


def require_on_hub(name: str, revision: str | None) -> None:
    """Ask the Hub whether it has `name` at `revision` and would hand it out; a few seconds.

    Raises PipelineError when not, or when it cannot be reached; that message holds the command that downloads it.
    """
    from huggingface_hub import HfApi

    with _told_plainly(name, revision):
        HfApi().model_info(_MOVED.get(name, name), revision=revision, timeout=_NETWORK_TIMEOUT_S)


def download(name: str, revision: str | None) -> Path:
    """Fetch `name` at commit `revision` into the local cache and return its folder there; errors as require_on_hub."""
    from huggingface_hub import snapshot_download

    with _told_plainly(name, revision):
        return Path(snapshot_download(_MOVED.get(name, name), revision=revision, allow_patterns=NEEDED_FILES))


def _present_name(name: str) -> str:
    if name not in _MOVED:
        return name
    print(f"{name} is no longer on the Hub under that name; using {_MOVED[name]}, the same weights.", flush=True)
    return _MOVED[name]


@contextmanager
def _told_plainly(asked: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    name = _MOVED.get(asked, asked)
    try:
        yield
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
        raise PipelineError(f"model.base: there is no folder {asked!r} here, and no such model on the Hub.") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            raise PipelineError(
                f"The base model {name} could not be written into the local cache ({error}). Free some space or mend "
                f"the permissions there, or name another cache folder: HF_HOME"
            ) from None
        if not _is_out_of_reach(error):
            raise
        patterns = " ".join(f"--include '{pattern}'" for pattern in NEEDED_FILES)
        raise PipelineError(
            f"model.base: there is no folder {asked!r} here; as a Hub id it is not in the local cache, and the Hub "
            f"cannot be reached ({type(error).__name__}).\n"
            f"Either, where there is a network ({DOWNLOAD_SIZE}), run\n"
            f"  hf download {name} --revision {revision} {patterns}\n"
            f"and bring the cache folder here (HF_HOME names it), or point model.base at a diffusers folder on disk "
            f"(with model.revision: null)."
        ) from None


def _is_out_of_reach(error: Exception) -> bool:
    # The Hub's client lets its HTTP library's errors through, and which library that is changes with its version.
    return isinstance(error, OSError) or type(error).__module__.startswith("httpx")
