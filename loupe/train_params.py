"""The section `train:` of params.yaml: every knob of training, its unit and bounds, and which contradict each other.

Like the rest of params.yaml it has no defaults. What depends on the base model or the machine (a layer name that
matches nothing, an optimizer that is not installed) is refused by the stage, not here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from loupe.errors import nearest_names
from loupe.param_types import Float, Int, PositiveInt, Section, Share

TARGET_PRESETS = ("qv", "attention", "attention+ff", "all-linear-conv")
"""Names for usual sets of layers; loupe/diffusion/target_modules.py says which layers each one is."""


def _preset_or_names(value: Any) -> str | tuple[str, ...]:
    presets = ", ".join(TARGET_PRESETS)
    if isinstance(value, str):
        if value not in TARGET_PRESETS:
            nearest = nearest_names(value, TARGET_PRESETS, limit=1)
            meant = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ValueError(f"no preset is called {value!r}: {presets}, or a list of layer names{meant}")
        return value
    if not isinstance(value, list | tuple) or not value or not all(name and isinstance(name, str) for name in value):
        raise ValueError(f"must be one of {presets}, or a list of at least one layer name (got {value!r})")
    return tuple(dict.fromkeys(value))


class TrainParams(Section):
    """How the adapter is trained."""

    max_steps: Int = Field(gt=0, le=10_000_000)
    """Optimizer steps."""
    checkpoint_every: PositiveInt
    """A checkpoint is kept every this many steps, and after the last one."""
    batch_size: Int = Field(gt=0, le=4096)
    """Examples per forward pass of one process; a process has one device."""
    gradient_accumulation_steps: Int = Field(gt=0, le=4096)
    """Forward passes per optimizer step in each process. What the adapter learns depends on the effective batch size:
    batch_size times this times the number of processes (1 unless `accelerate launch` starts more)."""
    gradient_checkpointing: Literal["auto", "always", "never"]
    """Recompute activations in the backward pass: less memory, about a third more time. auto: only where the estimate
    says that training would not fit otherwise."""
    compile: bool
    """Run the UNet through torch.compile: minutes of start-up, then faster steps on a GPU."""
    optimizer: Literal["adamw", "adamw_8bit", "prodigy"]
    """adamw; adamw_8bit keeps its moments in 8 bits (needs bitsandbytes and CUDA); prodigy finds the step size itself
    (needs prodigyopt; learning_rate is then a factor, 1.0)."""
    learning_rate: Float = Field(gt=0, le=10)
    """Peak learning rate; a factor on the optimizer's own step size for prodigy."""
    lr_scheduler: Literal["constant", "linear", "cosine"]
    """Learning-rate schedule after warm-up. Only with `constant` can max_steps be raised without training anew."""
    lr_warmup_steps: Int = Field(ge=0)
    """Optimizer steps over which the learning rate rises linearly from 0."""
    adam_beta1: Float = Field(ge=0, lt=1)
    """Decay of the optimizer's first moment."""
    adam_beta2: Float = Field(ge=0, lt=1)
    """Decay of the optimizer's second moment."""
    adam_epsilon: Float = Field(gt=0, le=1)
    """The optimizer's epsilon."""
    weight_decay: Float = Field(ge=0, le=10)
    """Decoupled weight decay of the A and B matrices."""
    max_grad_norm: Float = Field(ge=1e-6)
    """Gradients are scaled down to this global L2 norm."""
    rank: Int = Field(gt=0, le=1280)
    """LoRA rank r, the inner dimension of the A and B matrices; 1,280 is the width of Stable Diffusion 1.5's UNet."""
    alpha: Float = Field(gt=0, le=10_000)
    """LoRA alpha; the adapter's update is multiplied by alpha / rank (alpha / sqrt(rank) with use_rslora)."""
    use_rslora: bool
    """Rank-stabilised LoRA: alpha / sqrt(rank), so that a higher rank does not weaken the update."""
    use_dora: bool
    """DoRA: also train the length of every output row of an adapted weight; slower."""
    lora_dropout: Float = Field(ge=0, lt=1)
    """Share of each adapted layer's inputs that the adapter does not see while it is trained."""
    ema_decay: Float | None = Field(gt=0, lt=1)
    """Checkpoints hold an exponential moving average of the adapter with this decay per step; null: the weights."""
    target_modules: Annotated[str | tuple[str, ...], BeforeValidator(_preset_or_names)]
    """The UNet's layers that get an adapter: qv | attention | attention+ff | all-linear-conv, or a list of names (a
    name matches the end of a layer's path)."""
    train_text_encoder: bool
    """Also give the text encoder's attention layers an adapter, of the same rank and alpha, and train it with the
    UNet's: it learns words that the base model does not know, and each step then runs the text encoder as well."""
    text_encoder_learning_rate: Float | None = Field(gt=0, le=10)
    """Peak learning rate of the text encoder's adapter, on the same schedule; null: learning_rate."""
    noise_offset: Float = Field(ge=0, le=1)
    """Standard deviation of the constant added to each channel's noise; lets an image's mean move."""
    snr_gamma: Float | None = Field(ge=0.01)
    """Min-SNR gamma (5.0 in the paper); null weighs every timestep alike."""
    caption_dropout: Share
    """Share of the captions replaced by the empty one, for classifier-free guidance."""
    random_flip: bool
    """Show each photo mirrored left to right in half of its visits, drawn anew in every epoch; mirrored photos are
    encoded too. Not for products whose logo, text or side matters, which it teaches mirrored."""
    validation_timesteps: Int = Field(ge=8, le=1000)
    """The validation loss is taken at this many fixed timesteps, the middles of equal parts of the noise schedule.
    Every checkpoint costs this many forward passes per val image."""
    preview_prompts: Int = Field(ge=0)
    """While training, every checkpoint draws the first of generate's fixed prompts, at most this many; 0 for none."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...]
    """Also log to these, below .work and offline; each is a package to install."""

    @model_validator(mode="after")
    def _knobs_agree(self) -> Self:
        problems = []
        if self.checkpoint_every > self.max_steps:
            problems.append(
                f"checkpoint_every ({self.checkpoint_every}) is more than max_steps ({self.max_steps}), so there would "
                f"be one checkpoint and nothing to compare: lower it"
            )
        if self.lr_warmup_steps >= self.max_steps:
            problems.append(
                f"lr_warmup_steps ({self.lr_warmup_steps}) must be below max_steps ({self.max_steps}), or the peak "
                f"learning rate is never used"
            )
        if self.learning_rate * self.weight_decay >= 1:
            problems.append(
                f"learning_rate x weight_decay is {self.learning_rate * self.weight_decay:g}: every step would take "
                f"away all that the adapter has learned. Lower one of them, to below 1 together"
            )
        if self.caption_dropout == 1 and not self.train_text_encoder:
            problems.append("caption_dropout is 1, so no caption would ever be seen: lower it")
        problems += self._text_encoder_problems()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _text_encoder_problems(self) -> list[str]:
        problems = []
        rate = self.text_encoder_learning_rate
        if rate is not None and not self.train_text_encoder:
            problems.append(
                f"text_encoder_learning_rate is {rate:g}, but train_text_encoder is false, so nothing would learn at "
                f"it: set it to null, or train_text_encoder to true"
            )
        if rate is not None and self.optimizer == "prodigy":
            problems.append(
                f"text_encoder_learning_rate is {rate:g}, but prodigy finds one step size for all weights: set it to "
                f"null"
            )
        if self.train_text_encoder and self.caption_dropout == 1:
            problems.append(
                "caption_dropout is 1, so the text encoder would be trained (train_text_encoder) on the empty caption "
                "alone: lower it"
            )
        return problems
