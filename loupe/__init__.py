"""Loupe trains Stable Diffusion LoRAs reproducibly and shows, with evidence, which checkpoint to ship."""

__version__ = "0.1.0"
