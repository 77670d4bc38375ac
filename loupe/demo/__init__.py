"""The demo: a rendered product catalogue and a small Stable Diffusion trained from code alone."""
