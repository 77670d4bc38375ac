"""Where the weights of a base model lie in its folder, and what every supported one has alike."""

from __future__ import annotations

from pathlib import Path

PIXELS_PER_LATENT = 8
"""Of a side: what the VAE of every Stable Diffusion makes of one latent. A base model with another is refused."""
WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
"""Part -> name of its file, without variant and ending."""
_VARIANTS = (None, "fp16")


def weight_file(folder: Path, part: str) -> Path | None:
    """Return the safetensors file of a part of the base model, or None."""
    for variant in _VARIANTS:
        file = folder / part / f"{WEIGHTS[part]}{f'.{variant}' if variant else ''}.safetensors"
        if file.is_file():
            return file
    return None
