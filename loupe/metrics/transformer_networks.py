"""The optional scorers as functions: pictures to features or ratings, texts to features. They find no file.

A weight that the file lacks would be drawn at random with no more than a warning; here it is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loupe.errors import PipelineError
from loupe.metrics.clip import ClipNetwork
from loupe.metrics.images import Pixels
from loupe.metrics.networks import inference, require_trained
from loupe.metrics.transformer_models import AESTHETIC_LABEL, TransformerSource

ImageFunction = Callable[[Sequence[Pixels]], Mapping[str, NDArray]]


def load_picture_model(source: TransformerSource, device: str) -> ImageFunction:
    """Return images -> {features [B, D]} (the class token) for DINOv2, {rating [B]} in [0, 1] for an aesthetic model.

    Raises PipelineError when the weights are not whole, do not fit or were never trained.
    """
    from transformers import AutoModel, AutoModelForImageClassification

    rates = source.role == "aesthetic"
    model = _loaded(AutoModelForImageClassification if rates else AutoModel, source).to(device)
    prepare = _image_processor(source)

    def extract(images: Sequence[Pixels]) -> Mapping[str, NDArray]:
        with inference():
            found = model(pixel_values=prepare(images).to(device))
        if not rates:
            return {"features": found.last_hidden_state[:, 0].float().cpu().numpy()}
        column = next(i for i, label in model.config.id2label.items() if label == AESTHETIC_LABEL)
        return {"rating": found.logits.float().cpu().double().softmax(dim=1)[:, column].numpy()}

    return extract


def load_preference_model(source: TransformerSource, device: str) -> ClipNetwork:
    """Return what a CLIP model of transformers does with pictures and texts; errors as `load_picture_model`."""
    from transformers import AutoTokenizer, CLIPModel

    model = _loaded(CLIPModel, source).to(device)
    prepare = _image_processor(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise PipelineError(f"{source.folder}: its tokenizer does not load: {error}") from None
    length = model.config.text_config.max_position_embeddings

    def images(batch: Sequence[Pixels]) -> Mapping[str, NDArray]:
        with inference():
            pooled = model.vision_model(pixel_values=prepare(batch).to(device)).pooler_output
            return {"image": model.visual_projection(pooled).float().cpu().numpy()}

    def texts(batch: Sequence[str]) -> Mapping[str, NDArray]:
        tokens = tokenizer(list(batch), padding=True, truncation=True, max_length=length, return_tensors="pt")
        with inference():
            pooled = model.text_model(**tokens.to(device)).pooler_output
            features = model.text_projection(pooled).float().cpu().numpy()
        lengths = np.array([len(tokenizer(text)["input_ids"]) for text in batch], dtype=np.int64)
        return {"text": features, "n_tokens": lengths, "context_length": np.full(len(batch), length)}

    return ClipNetwork(images=images, texts=texts)


def _loaded(model_class: Any, source: TransformerSource) -> Any:
    """Return the model in evaluation mode, float32."""
    import torch

    try:
        model, report = model_class.from_pretrained(
            source.folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise PipelineError(f"{source.weights} does not load: {error}") from None
    lacking = sorted({*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])})
    if lacking:
        raise PipelineError(
            f"{source.weights} lacks {len(lacking)} weights of its network, e.g. {lacking[0]}; they would be random. "
            "Get the whole model."
        )
    require_trained(model, source.weights)
    return model.eval().requires_grad_(False)


def _image_processor(source: TransformerSource) -> Callable[[Sequence[Pixels]], Any]:
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(source.folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise PipelineError(f"{source.folder}: its image processor does not load: {error}") from None

    def prepare(images: Sequence[Pixels]) -> Any:
        pictures = [np.array(image) for image in images]  # a copy: torch warns of pixels it may not write to
        return processor(images=pictures, return_tensors="pt", input_data_format="channels_last")["pixel_values"]

    return prepare
