"""LATENTs: of pictures in the model's own channels."""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .numbers import require_finite, require_within

LEAST_SIDE = 8
"""Latent pixels (64 of the picture): below it the UNet's deepest level has not one whole pixel."""
LARGEST_LATENT = 1e6
"""Beyond what any picture or noise is: x_T of a zero-SNR model, in the VAE's scale, reaches 2e5."""


def one_latent(latent: dict[str, Any], model: ModelPatcher, name: str) -> Tensor:
    """The samples [1, C, H, W] of a LATENT, in the VAE's scale, when they fit the model.

    Raises ValueError for anything else than one finite picture of the model's channels, 64 pixels or more a side.
    """
    return some_latents(latent, model, name, most=1)


def some_latents(latent: dict[str, Any], model: ModelPatcher, name: str, most: int | None = None) -> Tensor:
    """The samples [B, C, H, W] of a LATENT of one or more pictures, otherwise as in ``one_latent``."""
    samples = latent.get("samples") if isinstance(latent, dict) else None
    if not isinstance(samples, Tensor) or not samples.is_floating_point():
        kind = f"samples of {samples.dtype}" if isinstance(samples, Tensor) else f"{type(samples).__name__} as samples"
        raise ValueError(
            f"{name}: a LATENT with 'samples', a tensor of floating point numbers, is expected, got {kind}. "
            "Wire VAE Encode."
        )
    channels = model.get_model_object("latent_format").latent_channels
    if samples.ndim != 4 or samples.shape[1] != channels:
        raise ValueError(
            f"{name}: this model works on latents [{most or 'B'}, {channels}, H, W], got {list(samples.shape)}. "
            "Encode the picture with this checkpoint's own VAE."
        )
    if samples.shape[0] < 1 or samples.shape[0] > (most or samples.shape[0]):
        raise ValueError(
            f"{name}: {'one content' if most else 'a picture'} is expected, got a batch of {samples.shape[0]}. "
            "Pick one with 'Latent From Batch' or 'Image From Batch', or queue them one by one."
        )
    height, width = samples.shape[-2:]
    if min(height, width) < LEAST_SIDE:
        raise ValueError(
            f"{name}: a picture of at least {8 * LEAST_SIDE} pixels on each side is needed, got a latent of "
            f"{width} x {height} (a picture of {8 * width} x {8 * height}). Use a larger picture."
        )
    require_finite(samples, name)
    require_within(samples, name, LARGEST_LATENT, "no picture's latent is that large: check the node that made it")
    return samples


def plain_latent(latent: dict[str, Any], name: str) -> Tensor:
    """The samples [1, C, H, W] of a LATENT of any model. Raises ValueError for anything but one finite picture's."""
    samples = latent.get("samples") if isinstance(latent, dict) else None
    if not isinstance(samples, Tensor) or not samples.is_floating_point():
        kind = f"samples of {samples.dtype}" if isinstance(samples, Tensor) else f"{type(samples).__name__} as samples"
        raise ValueError(f"{name}: a LATENT of floating point 'samples' is expected, got {kind}. Wire VAE Encode.")
    if samples.ndim != 4 or samples.shape[0] != 1 or min(samples.shape[-2:]) < 2:
        raise ValueError(
            f"{name}: one picture's latent [1, C, H, W] of 2 pixels or more a side is expected, got "
            f"{list(samples.shape)}. Pick one with 'Latent From Batch'."
        )
    require_finite(samples, name)
    return samples


def latent_notes(latent: dict[str, Any]) -> list[str]:
    """A line for each part of a LATENT that the pack does not use, to be shown on the node."""
    lines = []
    if latent.get("noise_mask") is not None:
        lines.append("note: the latent's noise mask is not used; the mask of a Regional Style says where it changes")
    if latent.get("batch_index") is not None:
        lines.append("note: the latent's batch index is not used: no noise is drawn here")
    return lines


def as_latent(samples: Tensor) -> dict[str, Tensor]:
    """A LATENT as the host passes it on."""
    return {"samples": samples.to("cpu", torch.float32)}
