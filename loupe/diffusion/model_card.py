"""The README.md that travels with an exported LoRA: what it is, what it was measured to do, how to load it.

It is text from values that are handed in; it reads nothing and computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loupe.diffusion.adapter import AdapterConfig
from loupe.diffusion.export_lora import DIFFUSERS_FILE, ExportLabels
from loupe.diffusion.sampling import SAMPLER
from loupe.diffusion.text_adapter import TEXT_LAYERS
from loupe.evaluation_records import Selection
from loupe.records import DatasetManifest


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """One metric for the base model and for the exported checkpoint; None where it could not be computed."""

    label: str
    better: str
    base: float | None
    exported: float | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why this checkpoint; empty scores when it was exported without an evaluation."""

    selection: Selection | None
    """None when a person named the step."""
    scores: Sequence[ScoreLine]
    n_images: int | None
    """Pictures per row of the scores."""
    n_real: int | None


@dataclass(frozen=True, slots=True)
class SuggestedSettings:
    """What the review's pictures were drawn with."""

    guidance_scale: float
    num_inference_steps: int
    negative_prompt: str


def model_card(
    labels: ExportLabels,
    config: AdapterConfig,
    dataset: DatasetManifest,
    evidence: Evidence,
    settings: SuggestedSettings,
    *,
    full_pipeline: bool,
    has_text_encoder: bool = False,
) -> str:
    """Return the card as Markdown with the YAML header that model hubs read.

    `has_text_encoder`: the files hold an adapter of the text encoder as well.
    """
    sections = [
        _front(labels),
        _what(labels, config, dataset, has_text_encoder=has_text_encoder),
        _why(labels.step, evidence),
        _how(labels, config, settings, full_pipeline=full_pipeline, has_text_encoder=has_text_encoder),
    ]
    return "\n\n".join(sections) + "\n"


def _front(labels: ExportLabels) -> str:
    lines = ["---", "library_name: diffusers", "tags: [lora, text-to-image, stable-diffusion]"]
    if labels.base_model.revision is not None:
        lines.append(f"base_model: {labels.base_model.name}")
    return "\n".join([*lines, "---"])


def _what(labels: ExportLabels, config: AdapterConfig, dataset: DatasetManifest, *, has_text_encoder: bool) -> str:
    base = labels.base_model
    revision = f", revision {base.revision}" if base.revision else ""
    layers = ", ".join(config.target_modules)
    if has_text_encoder:
        layers += f" of the UNet and {', '.join(TEXT_LAYERS)} of the text encoder"
    rows = {
        "Base model": f"{base.name}{revision} (SHA-256 `{base.sha256[:16]}…`, {base.prediction_type})",
        "Checkpoint": f"optimizer step {labels.step}",
        "LoRA": f"{_kind(config)}rank {config.rank}, alpha {config.alpha:g}, on {layers}; float32",
        "Trained on": f"{labels.n_train} images of the source `{dataset.source}` at {dataset.resolution_px} px",
        "Trigger": f"“{labels.trigger}”" if labels.trigger else "none",
    }
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join([f"# {labels.name}", "", "A LoRA for Stable Diffusion, made with Loupe.", "", *table])


def _kind(config: AdapterConfig) -> str:
    kinds = ["DoRA"] if config.use_dora else []
    kinds += ["rank-stabilised (strength alpha / sqrt(rank))"] if config.use_rslora else []
    return "".join(f"{kind}, " for kind in kinds)


def _why(step: int, evidence: Evidence) -> str:
    lines = ["## Why this checkpoint", ""]
    if evidence.selection is None:
        lines.append(f"Step {step} was named by a person; it need not be the one that was recommended.")
    else:
        if evidence.selection.verdict == "no clear winner":
            lines += [f"**There was no clear winner.** Step {step} is exported so that there is a file to try.", ""]
        lines.append(evidence.selection.reason)
    if evidence.scores:
        numbers = f"{evidence.n_images} pictures each on prompts of the validation split"
        real = f", against {evidence.n_real} real photos" if evidence.n_real else ""
        lines += ["", f"Measured on {numbers}{real}:", "", f"| score | better | base model | step {step} |"]
        lines += ["|---|---|---|---|", *(_score_row(line) for line in evidence.scores)]
    return "\n".join(lines)


def _score_row(line: ScoreLine) -> str:
    return f"| {line.label} | {line.better} | {_number(line.base)} | {_number(line.exported)} |"


def _number(value: float | None) -> str:
    return "not computed" if value is None else f"{value:.4g}"


def _how(
    labels: ExportLabels,
    config: AdapterConfig,
    settings: SuggestedSettings,
    *,
    full_pipeline: bool,
    has_text_encoder: bool,
) -> str:
    base, name = labels.base_model.name, labels.name
    negative = f", negative prompt “{settings.negative_prompt}”" if settings.negative_prompt else ""
    strengths = "strength_model 1, strength_clip 1" if has_text_encoder else "strength_model 1"
    lines = [
        "## How to load it",
        "",
        f"The pictures it was judged by: {labels.resolution_px} px, {SAMPLER}, {settings.num_inference_steps} steps, "
        f"guidance {settings.guidance_scale:g}{negative}. Strength 1 is what was trained.",
        "",
        f"- **AUTOMATIC1111, Forge**: put `{name}.safetensors` into `models/Lora`, and write "
        f"`<lora:{name}:1>` into the prompt.",
        f"- **ComfyUI**: put `{name}.safetensors` into `models/loras` and add the node *Load LoRA* ({strengths}).",
        "- **diffusers**:",
        "",
        "```python",
        "from diffusers import StableDiffusionPipeline",
        "",
        f'pipeline = StableDiffusionPipeline.from_pretrained("{base}", safety_checker=None)',
        f'pipeline.load_lora_weights("{name}-diffusers", weight_name="{DIFFUSERS_FILE}")',
        "```",
        "",
        "The first two need a base model that they know (Stable Diffusion 1.x or 2.x, or a fine-tune of it).",
    ]
    if config.use_dora:
        lines += [
            "",
            f"This is a DoRA: it also holds the length of every row of the adapted weights. `{name}-diffusers` gives "
            f"exactly what was trained. Programs that read `{name}.safetensors` treat these lengths each in their own "
            f"way, and some ignore them: expect pictures that differ from those it was judged by.",
        ]
    if full_pipeline:
        lines += ["", f"`{name}-pipeline` is the base model with the LoRA merged in; it needs no other file."]
    return "\n".join(lines)
