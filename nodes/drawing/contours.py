"""A picture with the outlines and numbers of masks drawn on it."""

from __future__ import annotations

import colorsys

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...diffstyler_core.masks.crops import label_place, outline

GOLDEN = 0.618034  # steps of hue by the golden section keep neighbouring numbers apart


def draw_contours(picture: Tensor, masks: Tensor) -> Tensor:
    """picture [H, W, 3] in 0..1, masks [K, H, W] in 0..1 -> the picture with each mask's outline and its number."""
    drawn = picture.detach().cpu().float().clone()
    size = max(12, min(drawn.shape[:2]) // 32)
    kept = [(number, mask) for number, mask in enumerate(masks > 0.5, 1) if mask.any()]
    for number, mask in kept:
        drawn[outline(mask, max(1, size // 8))] = torch.tensor(colour(number))
    canvas = Image.fromarray((drawn * 255.0).round().clamp(0, 255).to(torch.uint8).numpy())
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size)
    for number, mask in kept:
        fill = tuple(round(255 * level) for level in colour(number))
        place = label_place(mask)
        pen.text(place, str(number), fill, font, anchor="mm", stroke_width=max(1, size // 8), stroke_fill="black")
    return torch.from_numpy(np.asarray(canvas, dtype=np.float32) / 255.0)


def colour(number: int) -> tuple[float, float, float]:
    """A bright colour for a number, unlike those of the numbers next to it."""
    return colorsys.hsv_to_rgb(number * GOLDEN % 1.0, 0.85, 1.0)
