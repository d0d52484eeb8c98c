"""Checks of what users wire in, before any long work starts. Each error names the input, the value and the remedy."""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

Conditioning = list[list[Any]]
"""A CONDITIONING as the host's sockets carry it: [[embedding, options], ...]."""


def one_latent(latent: dict[str, Any], model: ModelPatcher, name: str) -> Tensor:
    """The samples [1, C, H, W] of a LATENT, in the VAE's scale, when they fit the model."""
    samples = latent["samples"]
    channels = model.get_model_object("latent_format").latent_channels
    if samples.ndim != 4 or samples.shape[1] != channels:
        raise ValueError(
            f"{name}: this model works on latents [1, {channels}, H, W], got {list(samples.shape)}. "
            "Encode the picture with this checkpoint's own VAE."
        )
    if samples.shape[0] != 1:
        raise ValueError(
            f"{name}: one content is expected, got a batch of {samples.shape[0]}. "
            "Pick one with 'Latent From Batch' or 'Image From Batch', or queue them one by one."
        )
    require_finite(samples, name)
    return samples


def require_finite(tensor: Tensor, name: str) -> None:
    """Raises ValueError when a tensor holds NaN or infinity."""
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} holds values that are not finite (NaN or infinity): check the node that made it.")


def one_conditioning(conditioning: list[Any], name: str) -> list[Any]:
    """A CONDITIONING with exactly one entry."""
    if len(conditioning) != 1:
        raise ValueError(
            f"{name}: one prompt is expected, got {len(conditioning)} combined ones. "
            "Wire a single CLIP Text Encode, without Conditioning Combine."
        )
    return conditioning


def style_pictures(image: Tensor, smallest: int = 64) -> Tensor:
    """Style pictures [B, H, W, 3] with values in 0..1."""
    if image.ndim != 4 or image.shape[-1] != 3:
        channels = image.shape[-1] if image.ndim == 4 else "no"
        remedy = {
            4: "Flatten its transparency first, e.g. with 'Split Image with Alpha'",
            1: "Turn the greyscale picture into RGB first",
        }.get(image.shape[-1], "Use an RGB picture")
        raise ValueError(f"style_image: RGB pictures are expected, got {channels} channels. {remedy}.")
    if min(image.shape[1:3]) < smallest:
        raise ValueError(
            f"style_image: pictures need at least {smallest} pixels on each side, got "
            f"{image.shape[2]} x {image.shape[1]}. Use a larger picture; enlarging a tiny one teaches only blur."
        )
    require_finite(image, "style_image")
    return image.clamp(0.0, 1.0)
