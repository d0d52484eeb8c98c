"""One picture per candidate, for ranking by what it shows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST = 100
"""Pixels. Candidates up to this area show nothing that a name could be given to, as FastSAM's authors have it."""


def candidate_crops(picture: Tensor, masks: Tensor, size: int) -> Tensor:
    """picture [H, W, 3] in 0..1, masks [N, H, W] bool -> [N, size, size, 3]: each object alone, on white, centred."""
    crops = [_square(picture, mask, size) for mask in masks]
    return torch.stack(crops) if crops else picture.new_zeros(0, size, size, 3)


def large_enough(masks: Tensor) -> Tensor:
    """Which masks [N, H, W] are worth ranking -> [N] bool."""
    return masks.flatten(1).sum(1) > SMALLEST


def bounds(mask: Tensor) -> tuple[int, int, int, int]:
    """The smallest rectangle (x1, y1, x2, y2) around a mask [H, W] that is not empty; x2 and y2 lie just outside."""
    rows = mask.any(1).nonzero().flatten()
    columns = mask.any(0).nonzero().flatten()
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _square(picture: Tensor, mask: Tensor, size: int) -> Tensor:
    """One object on white, its longer side as long as the crop."""
    x1, y1, x2, y2 = bounds(mask)
    alone = torch.where(mask[y1:y2, x1:x2, None], picture[y1:y2, x1:x2], torch.ones_like(picture[y1:y2, x1:x2]))
    side = max(y2 - y1, x2 - x1)
    left, top = (side - (x2 - x1)) // 2, (side - (y2 - y1)) // 2
    edges = (0, 0, left, side - (x2 - x1) - left, top, side - (y2 - y1) - top)
    square = functional.pad(alone, edges, value=1.0).movedim(-1, 0)[None]
    resized = functional.interpolate(square, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return resized[0].movedim(0, -1).clamp(0.0, 1.0)
