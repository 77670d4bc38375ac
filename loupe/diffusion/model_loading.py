"""Loading the parts of a base model, which base_model.py has found whole: frozen, from safetensors, in a given dtype.

How they are loaded decides results, so this module is in the key of whatever is computed with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from loupe.diffusion.base_model_files import weight_file
from loupe.diffusion.device_memory import is_out_of_memory
from loupe.errors import PipelineError

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer


def load_unet(folder: Path, *, device: str, dtype: torch.dtype) -> UNet2DConditionModel:
    """Load the UNet: evaluation mode, frozen, in `dtype` whatever the stored one."""
    from diffusers import UNet2DConditionModel

    return _frozen(UNet2DConditionModel, folder, "unet", device=device, torch_dtype=dtype)


def load_vae(folder: Path, *, device: str, dtype: torch.dtype) -> AutoencoderKL:
    """Load the variational autoencoder: evaluation mode, frozen, in `dtype` whatever the stored one."""
    from diffusers import AutoencoderKL

    return _frozen(AutoencoderKL, folder, "vae", device=device, torch_dtype=dtype)


def load_text_encoder(folder: Path, *, device: str, dtype: torch.dtype) -> CLIPTextModel:
    """Load the CLIP text encoder: evaluation mode, frozen, in `dtype` whatever the stored one."""
    from transformers import CLIPTextModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    return _frozen(CLIPTextModel, folder, "text_encoder", device=device, dtype=dtype)


def _frozen(kind: Any, folder: Path, part: str, *, device: str, **dtype: torch.dtype) -> Any:
    file = weight_file(folder, part)
    variant = "fp16" if file is not None and file.name.endswith(".fp16.safetensors") else None
    try:
        model, loaded = kind.from_pretrained(
            folder / part, use_safetensors=True, local_files_only=True, variant=variant, output_loading_info=True,
            **dtype,
        )  # fmt: skip
    except (ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        raise PipelineError(_unlike(folder, part, str(error).strip().splitlines()[0])) from None
    # transformers fills what a file lacks with random numbers, and other ones each time; diffusers leaves it empty.
    if lacking := sorted(map(str, [*loaded["missing_keys"], *loaded["mismatched_keys"]])):
        named = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        raise PipelineError(_unlike(folder, part, f"the file lacks {named}"))
    return model.to(device).eval().requires_grad_(False)


def _unlike(folder: Path, part: str, why: str) -> str:
    return (
        f"{folder}: the weights of {part} are not those that {part}/config.json describes: {why}. "
        f"Download or copy the base model again."
    )


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Load the CLIP tokenizer."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)


def load_noise_scheduler(folder: Path) -> DDPMScheduler:
    """Load the noise schedule and prediction type that the base model was trained with, whatever its default sampler.

    A sampler is built from its `.config`.
    """
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
