"""A picture with the outlines and numbers of masks drawn on it."""

from __future__ import annotations

import torch
from torch import Tensor

from ...diffstyler_core.masks.outlines import inmost_point, inner_line
from .labels import Label, write_labels
from .palette import colour_of


def draw_contours(picture: Tensor, masks: Tensor) -> Tensor:
    """picture [H, W, 3] in 0..1, masks [K, H, W] in 0..1 -> the picture with each mask's outline and its number."""
    drawn = picture.detach().cpu().float().clone()
    size = max(12, min(drawn.shape[:2]) // 32)
    numbers = []
    for index, mask in enumerate(masks > 0.5):
        at = inmost_point(mask.float())
        if at is not None:
            drawn[inner_line(mask, max(1, size // 8))] = torch.tensor(colour_of(index))
            numbers.append(Label(str(index + 1), at))
    return write_labels(drawn, numbers, size)
