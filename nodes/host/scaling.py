"""Pictures at the sizes that models were trained on."""

from __future__ import annotations

import math
from typing import Literal

import comfy.utils
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from torch import Tensor

from .model import native_side

Shape = Literal["square", "keep aspect"]
SHAPES: tuple[Shape, ...] = ("square", "keep aspect")
STEP = 64
"""Pixels that sides are multiples of: the VAE's eight times the UNet's eight, so that every layer's grid divides it."""
LARGEST = 8192
LONGEST = 8
"""How many times longer one side may be than the other."""


def size_for(model: ModelPatcher, pictures: Tensor, shape: Shape, side: int) -> tuple[int, int]:
    """(width, height) for pictures [B, H, W, 3]: about side x side pixels; side 0 is the model's own.

    Raises ValueError for another shape, a side out of bounds, and a picture too long and narrow to keep its aspect.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r:.100}.")
    if side != 0 and not STEP <= side <= LARGEST:
        raise ValueError(f"size must be 0 (the model's own) or lie in {STEP}..{LARGEST}, got {side!r:.100}.")
    wanted = side or native_side(model)
    height, width = pictures.shape[1:3]
    if shape == "square":
        return _multiple(wanted), _multiple(wanted)
    if max(height, width) > LONGEST * min(height, width):
        raise ValueError(
            f"image: {width} x {height} is more than {LONGEST} times longer than it is wide, too narrow for any model. "
            "Crop it first, or set shape to square."
        )
    aspect = math.sqrt(width / height)
    return _multiple(wanted * aspect), _multiple(wanted / aspect)


def scaled(pictures: Tensor, width: int, height: int) -> Tensor:
    """Pictures [B, height, width, 3] of others' middles, in 0..1 (Lanczos)."""
    flat = rearrange(pictures, "b h w c -> b c h w")
    return rearrange(comfy.utils.common_upscale(flat, width, height, "lanczos", "center"), "b c h w -> b h w c")


def _multiple(side: float) -> int:
    return max(STEP, round(side / STEP) * STEP)
