"""One training of a style embedding: the private copies, and what is trained between picture and prompt."""

from __future__ import annotations

from typing import Any, NamedTuple

import comfy.model_management as management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from PIL import Image
from torch import Tensor, nn

from ....diffstyler_core.training.embedding import (
    ATTENTION,
    EmbeddingConfig,
    FreeVectors,
    ImageAttention,
    Vectors,
    extracted,
)
from ....diffstyler_core.training.layers import checkpointed
from ....diffstyler_core.training.train import Course, Predict, optimize
from ..checks.conditioning import Conditioning
from ..model import prediction_of, schedule_of
from .conditioning import predict_by, unet_inputs
from .encoder import PrivateEncoder, widths_of
from .latents import latent_source
from .placeholder import Prompt, first_vectors
from .private_copy import blocks_of, private_unet
from .run import PREVIEW_STEPS, Preview, Progress, levels_of, preview_of, training


class Learned(NamedTuple):
    """What was trained, how its loss went, and what the user should know about it."""

    vectors: Vectors
    course: Course
    words: str


def train_embedding(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    pictures: Tensor,
    prompt: Prompt,
    image: Tensor | None,
    config: EmbeddingConfig,
    dtype: torch.dtype,
    progress: Progress,
) -> Learned:
    """Trains on private copies of UNet and text encoders; model, clip and VAE are left as they are, whatever happens.

    image: the pictures' CLIP embedding [1, D], for the method that learns from it.
    """
    with training(progress):
        draw, shape, words = latent_source(vae, model, pictures)
        unet = private_unet(model, dtype).requires_grad_(False)
        encoder = PrivateEncoder(clip)
        source = source_of(clip, encoder, image, config).to(management.get_torch_device())
        predict = predict_from(source, unet, encoder, model, prompt, (config.batch_size, *shape), dtype)
        render = preview_of(predict, schedule_of(model, PREVIEW_STEPS), model, vae, shape, config.seed)
        progress.preview = without_dropout(source, render)
        progress.start()
        parameters = [p for p in source.parameters() if p.requires_grad]
        with checkpointed(blocks_of(unet), config.gradient_checkpointing):
            course = optimize(parameters, predict, draw, levels_of(model), prediction_of(model), config, progress)
        return Learned(extracted(source), course, words)


def source_of(clip: CLIP, encoder: PrivateEncoder, image: Tensor | None, config: EmbeddingConfig) -> nn.Module:
    """What the vectors come from, and what is trained of it."""
    if config.method == ATTENTION and image is not None:
        return ImageAttention(image.float(), widths_of(clip), config.seed)
    return FreeVectors(first_vectors(clip, encoder, config.initial_word, config.vectors))


def predict_from(
    source: nn.Module,
    unet: nn.Module,
    encoder: PrivateEncoder,
    model: ModelPatcher,
    prompt: Prompt,
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> Predict:
    """The UNet with the prompt that holds the source's vectors as they are at each evaluation."""

    def inputs() -> dict[str, Tensor]:
        return unet_inputs(model, encoder(prompt.filled(source())), shape, dtype)

    return predict_by(unet, inputs, dtype)


def without_dropout(source: nn.Module, render: Preview) -> Preview:
    """The preview with everything of the source at work, as in the file."""

    def shown() -> Image.Image:
        try:
            source.eval()
            return render()
        finally:
            source.train()

    return shown


def picture_embedding(clip_vision: Any, pictures: Tensor) -> Tensor:
    """The mean CLIP embedding [1, D] of pictures, projected, not normalised."""
    embedded: Tensor = clip_vision.encode_image(pictures)["image_embeds"]
    if not torch.isfinite(embedded).all():
        raise ValueError(
            "clip_vision: its embedding of style_image is not finite (NaN or infinity). Load another CLIP."
        )
    with torch.inference_mode(False):
        return embedded.detach().float().clone().mean(dim=0, keepdim=True)


def require_projection(clip_vision: Any) -> None:
    """Raises ValueError for a picture encoder that is no CLIP with an image projection."""
    kind = getattr(clip_vision, "model_type", type(clip_vision).__name__)
    if kind != "clip_vision_model" or clip_vision.config.get("projection_dim") is None:
        raise ValueError(f"clip_vision must be a CLIP with an image projection, got a {kind}. Load a CLIP ViT instead.")


def encoded(clip: CLIP, prompt: Prompt, vectors: Vectors) -> Conditioning:
    """The prompt with the vectors, as the stock CLIP Text Encode encodes it."""
    conditioning: Conditioning = clip.encode_from_tokens_scheduled(prompt.filled(vectors))
    return conditioning
